"""What the router exchanges with workers and with the probe: frames, signatures, requests and answers. No I/O."""
