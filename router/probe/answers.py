"""What the router believes of a probe child's answer: the file that the child decoded may have taken it over."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

from mastering.contract import Facts, Fault, FaultCode, accepted_numbers
from mastering.protocol.probe import MAX_ANSWER_BYTES, AnswerT, ProbeAnswer, SandboxChecks, VerifiedAudio, VerifiedJson
from router.probe.process import ProbeLost


async def read_line(conversation: socket.socket) -> bytes:
    """The child's answer: a line if it is whole, of at most MAX_ANSWER_BYTES. Raises ProbeLost where it is gone."""
    loop = asyncio.get_running_loop()
    answer = bytearray()
    try:
        while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER_BYTES:
            piece = await loop.sock_recv(conversation, MAX_ANSWER_BYTES)
            if not piece:
                break
            answer += piece
    except ConnectionResetError:
        raise ProbeLost from None
    return bytes(answer)


def parse_answer(kind: type[AnswerT], line: bytes) -> AnswerT:
    """What `line` tells of the file. Raises Fault where it tells one, ProbeLost for what no honest child says."""
    if not line.endswith(b"\n"):
        raise ProbeLost
    try:
        answer = _MODELS[kind].model_validate_json(line)
    except ValueError:
        raise ProbeLost from None
    if (told := answer.fault) is not None:
        if accepted_numbers(told.numbers) != told.numbers:  # of the same version as we: an honest child sends no other
            raise ProbeLost
        raise Fault(told.code, told.message, **told.numbers)
    if not isinstance(answer.ok, kind) or not _is_possible(answer.ok):
        raise ProbeLost
    return answer.ok


_MODELS: dict[type, type[ProbeAnswer[Any]]] = {
    Facts: ProbeAnswer[Facts],
    VerifiedAudio: ProbeAnswer[VerifiedAudio],
    VerifiedJson: ProbeAnswer[VerifiedJson],
    SandboxChecks: ProbeAnswer[SandboxChecks],
}
"""Built once: a line is validated in some 25 µs."""


def _is_possible(found: object) -> bool:
    """Whether a recording can have these facts."""
    if not isinstance(found, Facts):
        return True
    return all(0 < count < math.inf for count in (found.rate_hz, found.channels, found.frames, found.duration_s))


def probe_broken() -> Fault:
    """The probe's own failure, whatever the file."""
    return Fault(FaultCode.INTERNAL, "The check of this file was interrupted. Try again.")
