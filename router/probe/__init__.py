"""The router's end of the probe: asks a locked process what untrusted bytes are."""
