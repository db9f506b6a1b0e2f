"""Untrusted bytes → facts: a process of its own, `python -m mastering.probe --zygote FD`.

`__main__` holds the zygote (forks one child a request), `answer` what a child does, `listen` the decoding,
`structure` what a file's own bytes say of its format and length. Nothing here is imported by others: the router
talks to the process (router/probing.py).
"""
