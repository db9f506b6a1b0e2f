"""Where a fit computes: a GPU where torch can use one, else one thread of the CPU; float32 on both.

An iteration is some 700 small operations, and what takes time on a GPU is to ask for them one by one. So they are
recorded once, as a CUDA graph, and asked for together from then on (`repeated`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_PLAIN_CALLS = 2
"""Calls before the recording: in them libraries make their handles and workspaces, which can't be recorded."""


class DeviceFailed(RuntimeError):
    """The device cannot go on: out of memory, or broken."""


@contextmanager
def guarded() -> Iterator[None]:
    """Turns torch's errors into DeviceFailed. Around work on the device alone, never around a caller's own code."""
    try:
        yield
    except RuntimeError as error:  # torch's own errors, out of memory among them
        raise DeviceFailed from error


def torch_device_name() -> str:
    """The GPU's name where torch can use one, else cpu."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def default_device() -> torch.device:
    """The first GPU where torch can use one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def at_work(device: torch.device) -> Iterator[None]:
    """Sets torch up for a descent: a GPU stream of its own, since the default one can't be recorded; one CPU thread.

    One thread adds in one order, whatever the machine; the blocks are too small for more of them to help much.
    """
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def wait_for_device(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for: only then are clocks read and errors raised rightly."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def repeated(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`work`, to be called many times inside `at_work`; on a GPU recorded at the third call and replayed from then on.

    It must do the same operations on the same tensors each time, and read none of them: what is to differ between two
    calls lies in tensors too.
    """
    return Repeated(work, recorded) if device.type == "cuda" else work


class Repeated:
    """Work that is called at first, then recorded and replayed; where it can't be recorded, called for ever."""

    def __init__(self, work: Callable[[], None], record: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self._work = self._next = work
        self._record = record
        self._calls = 0

    def __call__(self) -> None:
        if self._calls == _PLAIN_CALLS:
            try:
                self._next = self._record(self._work)
            except RuntimeError:  # recording does nothing yet, so nothing was done in part
                self._next = self._work
        self._calls += 1
        self._next()


def recorded(work: Callable[[], None]) -> Callable[[], None]:
    """A function that replays `work`; recording it does nothing yet. Raises RuntimeError.

    Not `torch.cuda.graph`, which collects the garbage of the whole process first.
    """
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin()
    try:
        work()
    finally:
        graph.capture_end()
    return graph.replay
