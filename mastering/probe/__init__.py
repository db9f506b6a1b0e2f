"""Untrusted bytes → facts: a process of its own, `python -m mastering.probe --zygote FD`.

`__main__` holds the zygote (forks one child a request), `request` what it is asked, `answer` what a child does,
`glance` what one child does for all plain WAVs, `structure` what a file's own bytes say of its format and length,
`recordings` the decoders, `listen` the verdict on what they give. Nothing here is imported by others: the router talks
to the process (router/probe/client.py, router/probe/wav_header.py).
"""
