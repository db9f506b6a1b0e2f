"""A file heard while it arrives: its bytes go from whichever thread has them to the probe's child that listens."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from mastering.contract import Facts, Fault, FaultCode
from router.core.threads import begun

_R = TypeVar("_R", bound=Facts)
EARLY_S = 20.0
"""A file that takes longer to arrive is not heard on its way: an ear is for those that come quickly."""
_PATIENCE_S = 2.0
"""A child that takes nothing for so long must not keep an upload waiting; the spool has it all."""
_ON_THE_WAY_BYTES = 1024 * 1024
"""Between a thread and the child that listens; the kernel may allow less. A piece that fits wakes each of them once."""


class StreamTap(Generic[_R]):
    """Listens to a file of `size` bytes while it arrives. Close it, whatever comes."""

    def __init__(
        self,
        size: int,
        glance: Callable[[memoryview], _R | None],
        listen: Callable[[StreamTap[_R]], Coroutine[Any, Any, _R]],
    ):
        """`glance` says, in a thread, what a file is that begins with a piece, as far as that says it all; where it
        does not, a child is to `listen`."""
        self._size = size
        self._passed = self._heard = 0
        self._glance, self._listen = glance, listen
        self._seen: _R | None = None
        """By a glance, when nobody had to listen."""
        self._conversation: socket.socket | None = None
        self._begun, self._speaking = threading.Event(), threading.Lock()
        self._is_deaf = self._is_left = False
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Task[_R] | None = None

    def begin(self, conversation: socket.socket) -> None:
        """Somebody is there who listens; the socket is this ear's from now on."""
        conversation.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY_BYTES)
        self._conversation = conversation
        self._begun.set()

    def take(self, piece: memoryview) -> None:
        """Hear the next bytes, in whichever thread has them: it may have to wait for who listens."""
        with self._speaking:
            if piece and not self._passed:
                self._look(piece)
            self._passed += len(piece)
            if self._is_deaf:
                return
            try:
                self._begun.wait(_PATIENCE_S)
                _send(self._conversation, piece)
                self._heard += len(piece)
            except (BrokenPipeError, ConnectionResetError):  # the child has ended; its answer says why
                self._is_deaf = self._is_left = True
            except OSError:  # it takes nothing, or the kernel has no memory: the spool has it all
                self._is_deaf = True
                self._loop.call_soon_threadsafe(self.close)

    def _look(self, piece: memoryview) -> None:
        """At its beginning, before anybody has to listen."""
        self._seen = self._glance(piece)
        if self._seen is not None:
            self._is_deaf = True
        else:
            self._loop.call_soon_threadsafe(self._begin_listening)

    def _begin_listening(self) -> None:
        if self._is_deaf:
            return
        late = self._loop.call_later(EARLY_S, self._give_up)
        self._listening = asyncio.create_task(self._listen(self))
        self._listening.add_done_callback(self._ended)
        self._listening.add_done_callback(lambda _: late.cancel())

    async def verdict(self) -> _R | None:
        """What the file is; None where too little of it was heard, or the probe broke: ask in the ordinary way then.

        Raises Fault.
        """
        if self._listening is None:
            return self._whole(self._seen)
        is_heard = self._heard == self._size
        is_answered = self._is_left or self._listening.done()
        if self._listening.cancelled() or not (is_heard or is_answered):
            return None
        try:
            return self._whole(await asyncio.shield(self._listening))
        except Fault as fault:
            is_cut_off = fault.code is FaultCode.RESOURCE_LIMIT and not is_heard
            if fault.code is FaultCode.INTERNAL or is_cut_off:
                return None
            raise
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if self._listening.cancelled() and own is not None and not own.cancelling():
                return None
            raise

    def _whole(self, record: _R | None) -> _R | None:
        """It may be known early what a file of the announced size is, but not whether it has that size."""
        return record if self._passed == self._size else None

    def close(self) -> None:
        """End the child."""
        self._is_deaf = True
        if self._listening is not None:
            self._listening.cancel()

    def _give_up(self) -> None:
        if self._heard < self._size:
            self.close()

    def _ended(self, listening: asyncio.Task[_R]) -> None:
        if not listening.cancelled():
            listening.exception()  # seen, though nobody may ask
        self._is_deaf = True
        self._begun.set()
        if self._conversation is not None:
            with suppress(OSError):
                self._conversation.shutdown(socket.SHUT_RDWR)  # whoever speaks stops at once
            begun(self._hang_up, self._conversation)

    def _hang_up(self, conversation: socket.socket) -> None:
        with self._speaking:  # nobody writes to a number that is another file's by then
            conversation.close()


def _send(conversation: socket.socket | None, piece: memoryview) -> None:
    """All of `piece`, from a thread, to a socket that does not block. Raises OSError, TimeoutError among them."""
    if conversation is None:
        raise TimeoutError
    writable = select.poll()
    writable.register(conversation, select.POLLOUT)
    while piece:
        try:
            piece = piece[conversation.send(piece) :]
        except BlockingIOError:
            if not writable.poll(_PATIENCE_S * 1000):
                raise TimeoutError from None
