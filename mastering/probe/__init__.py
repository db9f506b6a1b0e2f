"""Untrusted bytes → facts, in sandboxed processes: `python -m mastering.probe --fork-server FD`.

`__main__` sets up the sandbox and starts `fork_server`, which forks one child a request (`forked`). `answer` is what a
child does: take the bytes in (`growing_file`), lock itself up, decode (`decoders`, by `sndfile_decoder` or
`libav_decoder`), check what comes (`checks`). `wav_header` is what one long-lived child does for plain WAVs. Nothing
here is imported by others: the router talks to the process (`mastering.protocol.probe`).
"""
