"""Feeds an upload's bytes to the probe while they arrive, so that the answer comes a moment after the last byte.

Three parties take part: the threads that store the body and call `write` (one at a time), the event loop, and the
probe's child process behind a socket. A plain WAV needs no child: its header tells everything (`wav_header`). A tap
that gives up costs nothing: the spool has every byte, and the file is probed from there.

| `TapState` | who ends it | how | next |
| --- | --- | --- | --- |
| `NEW` | writing thread | the first piece holds a header that tells everything | `RECOGNISED` |
| | writing thread | it does not; the loop is asked to start a child | `STARTING` |
| | event loop | `close` | `ABANDONED` |
| `STARTING` | event loop | `attach`: the child is there, with its socket | `FEEDING` |
| | event loop | no child is to be had (`_on_probed`) | `ANSWERED` |
| | writing thread | waited `_MAX_WAIT_S` for the child | `ABANDONED` |
| | event loop | `close`, or `MAX_ARRIVAL_S` is over | `ABANDONED` |
| `FEEDING` | child, seen by the writing thread | it has hung up: it knows enough | `ANSWERED` |
| | child, seen by the event loop | it has answered, or broke | `ANSWERED` |
| | writing thread | the child took nothing for `_MAX_WAIT_S` | `ABANDONED` |
| | event loop | `close`, or `MAX_ARRIVAL_S` is over | `ABANDONED` |

The other three are final. What is shared:

| field | written by | guarded by |
| --- | --- | --- |
| `_state` | both | `_state_lock`, held for a comparison and an assignment |
| `_arrived_bytes`, `_fed_bytes`, `_recognised` | writing thread | `_write_lock`, held while it waits for the child |
| `_conversation`, `_probing` | event loop | set once, before `_is_attached` is set |
| closing the socket | a thread of the pool, when the child is done | `_write_lock`: nobody may write to its number |
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from mastering.contract import Facts, Fault, FaultCode
from router.core.threads import start_in_thread

_R = TypeVar("_R", bound=Facts)
MAX_ARRIVAL_S = 20.0
"""A file that takes longer to arrive is given up, so that a slow upload never holds a probe process."""
_MAX_WAIT_S = 2.0
"""A child that takes nothing for so long must not keep an upload waiting."""
_SOCKET_BYTES = 1024 * 1024
"""Send buffer to the child; the kernel may allow less. A piece that fits wakes each side once."""


class TapState(Enum):
    """Where a `StreamTap` stands; the module says who moves it on."""

    NEW = auto()
    """No byte has arrived."""
    STARTING = auto()
    """A child was asked for; the first pieces wait for it."""
    FEEDING = auto()
    """The child takes the pieces."""
    RECOGNISED = auto()
    """The file's header told everything."""
    ANSWERED = auto()
    """The child has answered, is about to, or broke: it takes no more."""
    ABANDONED = auto()
    """Closed, too slow, or nobody took the bytes."""


_OPEN = (TapState.NEW, TapState.STARTING, TapState.FEEDING)


class StreamTap(Generic[_R]):
    """The probing of a file of `size` bytes while it arrives. Made on the event loop; `close` it in any case."""

    def __init__(
        self,
        size: int,
        read_header: Callable[[memoryview], _R | None],
        probe_in_child: Callable[[StreamTap[_R]], Coroutine[Any, Any, _R]],
    ):
        """`read_header`, called in a thread, gives the facts of a file by its first piece where that tells them all;
        `probe_in_child` gets a child, calls `attach` with its socket, and returns the facts that it answers."""
        self._size = size
        self._read_header, self._probe_in_child = read_header, probe_in_child
        self._state, self._state_lock = TapState.NEW, threading.Lock()
        self._arrived_bytes = self._fed_bytes = 0
        self._recognised: _R | None = None
        self._conversation: socket.socket | None = None
        self._is_attached, self._write_lock = threading.Event(), threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._probing: asyncio.Task[_R] | None = None

    def _move(self, to: TapState, *come_from: TapState) -> bool:
        """Enter `to` if the state is one of `come_from`; whether it was. In any thread."""
        with self._state_lock:
            is_due = self._state in come_from
            if is_due:
                self._state = to
            return is_due

    def attach(self, conversation: socket.socket) -> None:
        """On the loop: the child is there; the socket to it belongs to this tap from now on."""
        conversation.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        self._conversation = conversation
        self._move(TapState.FEEDING, TapState.STARTING)
        self._is_attached.set()

    def write(self, piece: memoryview) -> None:
        """In a thread: pass the file's next bytes on, and wait for the child to take them."""
        with self._write_lock:
            if piece and not self._arrived_bytes:
                self._open(piece)
            self._arrived_bytes += len(piece)
            if self._state not in (TapState.STARTING, TapState.FEEDING):
                return
            try:
                self._is_attached.wait(_MAX_WAIT_S)
                _send_all(self._conversation, piece)
                self._fed_bytes += len(piece)
            except (BrokenPipeError, ConnectionResetError):  # the child has ended; its answer says why
                self._move(TapState.ANSWERED, TapState.FEEDING)
            except OSError:  # it takes nothing, or the kernel has no memory
                self._move(TapState.ABANDONED, *_OPEN)
                self._loop.call_soon_threadsafe(self.close)

    def _open(self, piece: memoryview) -> None:
        """Look at the file's first piece, before a child is started for it."""
        self._recognised = self._read_header(piece)
        if self._recognised is not None:
            self._move(TapState.RECOGNISED, TapState.NEW)
        elif self._move(TapState.STARTING, TapState.NEW):
            self._loop.call_soon_threadsafe(self._start_child)

    def _start_child(self) -> None:
        if self._state is not TapState.STARTING:  # closed meanwhile
            return
        late = self._loop.call_later(MAX_ARRIVAL_S, self._end_late_arrival)
        self._probing = asyncio.create_task(self._probe_in_child(self))
        self._probing.add_done_callback(self._on_probed)
        self._probing.add_done_callback(lambda _: late.cancel())

    async def result(self) -> _R | None:
        """The file's facts; None where the child got too little of it or the probe broke: probe it from the spool then.

        To be called when all of the file has been written. Raises Fault for a file that is not accepted.
        """
        if self._probing is None:
            return self._if_complete(self._recognised)
        is_fed = self._fed_bytes == self._size
        is_answered = self._state is TapState.ANSWERED or self._probing.done()
        if self._probing.cancelled() or not (is_fed or is_answered):
            return None
        try:
            return self._if_complete(await asyncio.shield(self._probing))
        except Fault as fault:
            is_cut_off = fault.code is FaultCode.RESOURCE_LIMIT and not is_fed
            if fault.code is FaultCode.INTERNAL or is_cut_off:
                return None
            raise
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if self._probing.cancelled() and own is not None and not own.cancelling():
                return None
            raise

    def _if_complete(self, facts: _R | None) -> _R | None:
        """It may be known early what a file of the announced size is, but not whether it has that size."""
        return facts if self._arrived_bytes == self._size else None

    def close(self) -> None:
        """On the loop: pass nothing on any more, and end the child."""
        self._move(TapState.ABANDONED, *_OPEN)
        if self._probing is not None:
            self._probing.cancel()

    def _end_late_arrival(self) -> None:
        if self._fed_bytes < self._size:
            self.close()

    def _on_probed(self, probing: asyncio.Task[_R]) -> None:
        """On the loop: the child has answered, broke, or was cancelled."""
        if not probing.cancelled():
            probing.exception()  # retrieved, though nobody may ask for it
        self._move(TapState.ANSWERED, *_OPEN)
        self._is_attached.set()
        if self._conversation is not None:
            with suppress(OSError):
                self._conversation.shutdown(socket.SHUT_RDWR)  # a thread that waits for the child stops at once
            start_in_thread(self._close_conversation, self._conversation)

    def _close_conversation(self, conversation: socket.socket) -> None:
        with self._write_lock:  # nobody writes to a number that is another file's by then
            conversation.close()


def _send_all(conversation: socket.socket | None, piece: memoryview) -> None:
    """All of `piece`, from a thread, to a socket that does not block. Raises OSError, TimeoutError among them."""
    if conversation is None:
        raise TimeoutError
    writable = select.poll()
    writable.register(conversation, select.POLLOUT)
    while piece:
        try:
            piece = piece[conversation.send(piece) :]
        except BlockingIOError:
            if not writable.poll(_MAX_WAIT_S * 1000):
                raise TimeoutError from None
