"""The router's end of a glance: one child of the zygote that tells a plain WAV by its beginning, and never decodes."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from contextlib import suppress

from mastering.contract import Fault
from mastering.protocol.probe import WAV_HEADER_SIZES, AnswerT, ProbeRequest
from router.probe.answers import parse_answer
from router.probe.process import ProbeLost, ProbeProcess

_BEGINNING_BYTES = 256 * 1024
"""A second and a half of a CD: most songs have begun by then."""
_PATIENCE_S = 0.5
"""With the one that glances: to have a child hear the file takes less than to wait for longer."""
_TURN_S = 0.1
"""So long whoever wants to ask waits for another's answer, for the same reason."""
_LASTS_S = 3600.0
"""Of processor time, which is fifty million songs."""
_MAX_ANSWER_BYTES = 4096


class WavHeaderReader:
    """Asked in threads, one at a time: an answer takes less than a millisecond."""

    def __init__(self, zygote: ProbeProcess) -> None:
        self._zygote = zygote
        self._conversation: socket.socket | None = None
        self._asking, self._being_opened = threading.Lock(), asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Have somebody there who can be asked. Raises Lost."""
        async with self._being_opened:
            if not self._is_open():
                request = ProbeRequest(op="wav_headers", timeout_s=_LASTS_S)
                conversation = await self._zygote.converse(request.model_dump_json().encode())
                conversation.settimeout(_PATIENCE_S)
                self._conversation = conversation

    def see_to_it(self) -> None:
        """Have it open again soon, where it was lost."""
        if not self._is_open() and (self._opening is None or self._opening.done()):
            self._opening = asyncio.create_task(self._reopen())

    def _is_open(self) -> bool:
        if not self._asking.acquire(blocking=False):  # somebody is being asked
            return True
        try:
            if self._conversation is not None:
                poll = select.poll()
                poll.register(self._conversation, select.POLLIN)
                if poll.poll(0):  # it has nothing to say but that it died
                    self._hang_up()
            return self._conversation is not None
        finally:
            self._asking.release()

    async def _reopen(self) -> None:
        with suppress(ProbeLost, OSError):
            await self.open()

    def at(self, kind: type[AnswerT], request: ProbeRequest, piece: memoryview) -> AnswerT | None:
        """In a thread: what the child answers to `request` of the file that begins with `piece`; None where that is
        nothing, or nobody answers."""
        if bytes(piece[:4]) != b"RIFF":
            return None
        text, beginning = request.model_dump_json().encode(), piece[:_BEGINNING_BYTES]
        if not self._asking.acquire(timeout=_TURN_S):
            return None
        try:
            return None if self._conversation is None else self._answer(self._conversation, kind, text, beginning)
        except (OSError, ProbeLost, Fault):  # it died or is taken over; a fault is the fork server's word of its end
            self._hang_up()
            return None
        except BaseException:  # what it answers now would be taken for the next answer
            self._hang_up()
            raise
        finally:
            self._asking.release()

    def _answer(
        self, conversation: socket.socket, kind: type[AnswerT], text: bytes, beginning: memoryview
    ) -> AnswerT | None:
        conversation.sendall(WAV_HEADER_SIZES.pack(len(text), len(beginning)) + text)
        conversation.sendall(beginning)
        line = _line(conversation)
        return None if line == b"null\n" else parse_answer(kind, line)

    def close(self) -> None:
        """Nobody is asked any more."""
        if self._opening is not None:
            self._opening.cancel()
        with self._asking:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None


def _line(conversation: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER_BYTES:
        piece = conversation.recv(_MAX_ANSWER_BYTES)
        if not piece:
            raise ConnectionResetError
        answer += piece
    return answer
