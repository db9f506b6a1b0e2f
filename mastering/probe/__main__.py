"""`python -m mastering.probe --fork-server FD`: import the decoders, set up the sandbox, serve requests."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

from mastering.runtime import blas, exec_shim, sandbox, syscall_filter


def _set_up_sandbox(parent: int) -> dict[str, bool]:
    """What all children inherit: no network, no root, no files. The layers, each with whether it is in force."""
    sandbox.forbid_core_dumps()
    layers = {"network namespace": sandbox.leave_network(), "unprivileged user": sandbox.drop_root()}
    exec_shim.die_with_parent(parent)  # this and the next after the change of user, which would lift them
    sandbox.keep_memory_private()
    sandbox.forbid_new_privileges()
    return {**layers, "Landlock": sandbox.forbid_files()}


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "--fork-server":
        sys.stderr.write("usage: python -m mastering.probe --fork-server FD (a SOCK_SEQPACKET socket)\n")
        return 2
    blas.one_thread()  # before numpy, which comes with the next two
    from mastering.probe.fork_server import ForkServer
    from mastering.probe.warm_up import sample_wav_check, warm_up

    control, parent = socket.socket(fileno=int(arguments[1])), os.getppid()
    for stream in (0, 1, 2):  # C libraries write to descriptor 2
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, stream)
        os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    check_sample = sample_wav_check()
    syscall_filter.decoding_filter()
    layers = _set_up_sandbox(parent)
    gc.collect()
    gc.freeze()
    ForkServer(control, layers, check_sample).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
