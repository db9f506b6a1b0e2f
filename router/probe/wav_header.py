"""Facts of a plain WAV by its first piece: asks one long-lived child of the probe's process, which never decodes.

Most songs are plain WAVs whose first seconds hold sound, and nothing that follows changes what such a file is. So no
child has to be started for them.
"""

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
"""Of the file, in each request: a second and a half of a CD. Most songs have begun by then."""
_ANSWER_S = 0.5
"""Longest wait for an answer: to have another child decode the file takes less than to wait for longer."""
_TURN_S = 0.1
"""Longest wait for another thread's answer before one's own request, for the same reason."""
_CPU_LIMIT_S = 3600.0
"""The child's limit of processor time: never reached by honest files, which take some 70 µs each, and an end to a child
that a file has made loop."""
_MAX_ANSWER_BYTES = 4096


class WavHeaderReader:
    """Asks the child, from threads, one request at a time: an answer takes less than a millisecond."""

    def __init__(self, process: ProbeProcess) -> None:
        self._process = process
        self._conversation: socket.socket | None = None
        self._asking, self._being_opened = threading.Lock(), asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Get a child to ask, where there is none. Raises ProbeLost."""
        async with self._being_opened:
            if not self._is_open():
                request = ProbeRequest(op="wav_headers", timeout_s=_CPU_LIMIT_S)
                conversation = await self._process.converse(request.model_dump_json().encode())
                conversation.settimeout(_ANSWER_S)
                self._conversation = conversation

    def reopen_if_lost(self) -> None:
        """Get another child in the background, where the last one was lost."""
        if not self._is_open() and (self._opening is None or self._opening.done()):
            self._opening = asyncio.create_task(self._reopen())

    def _is_open(self) -> bool:
        if not self._asking.acquire(blocking=False):  # it is answering a request
            return True
        try:
            if self._conversation is not None:
                poll = select.poll()
                poll.register(self._conversation, select.POLLIN)
                if poll.poll(0):  # no request is open, so all it can have sent is its end
                    self._hang_up()
            return self._conversation is not None
        finally:
            self._asking.release()

    async def _reopen(self) -> None:
        with suppress(ProbeLost, OSError):
            await self.open()

    def read(self, kind: type[AnswerT], request: ProbeRequest, piece: memoryview) -> AnswerT | None:
        """In a thread: what the child answers to `request` of the file that begins with `piece`; None where the
        beginning does not tell everything, or no answer comes."""
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
        except BaseException:  # its answer to this request would be taken for that to the next
            self._hang_up()
            raise
        finally:
            self._asking.release()

    def _answer(
        self, conversation: socket.socket, kind: type[AnswerT], text: bytes, beginning: memoryview
    ) -> AnswerT | None:
        conversation.sendall(WAV_HEADER_SIZES.pack(len(text), len(beginning)) + text)
        conversation.sendall(beginning)
        line = _read_line(conversation)
        return None if line == b"null\n" else parse_answer(kind, line)

    def close(self) -> None:
        """End the child."""
        if self._opening is not None:
            self._opening.cancel()
        with self._asking:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None


def _read_line(conversation: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER_BYTES:
        piece = conversation.recv(_MAX_ANSWER_BYTES)
        if not piece:
            raise ConnectionResetError
        answer += piece
    return answer
