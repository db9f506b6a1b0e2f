"""What a child of the probe may say, and what of it is believed: the file that it heard may have taken it over."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from typing import Any, TypeVar

from pydantic import ValidationError

from mastering.contract import Facts, Fault, FaultCode
from router.probe.process import ProbeLost

_R = TypeVar("_R", bound=Facts)
_MAX_ANSWER_BYTES = 64 * 1024


async def read_line(conversation: socket.socket) -> bytes:
    """What the child says, a line if it is whole. Raises Lost where it is gone."""
    loop = asyncio.get_running_loop()
    answer = bytearray()
    try:
        while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER_BYTES:
            piece = await loop.sock_recv(conversation, _MAX_ANSWER_BYTES)
            if not piece:
                break
            answer += piece
    except ConnectionResetError:
        raise ProbeLost from None
    return bytes(answer)


def parse(line: bytes) -> dict[str, Any]:
    """The answer of a line. Raises Fault where it is one, and Lost for what is no answer."""
    if not line.endswith(b"\n"):
        raise ProbeLost
    try:
        answer = json.loads(line)
        if "fault" not in answer:
            return dict(answer["ok"])
        said = answer["fault"]
        numbers = {str(name): value for name, value in said["numbers"].items() if _is_sane(value)}
        fault = Fault(FaultCode(said["code"]), _text(said["message"]), **numbers)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProbeLost from None
    raise fault


def _is_sane(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _text(said: object) -> str:
    return str(said)[:500].encode("utf-8", "replace").decode()


def record(kind: type[_R], answer: dict[str, Any]) -> _R:
    """The facts of an answer. Raises Fault(internal) for such as no recording can have."""
    try:
        facts = kind.model_validate(answer)
    except ValidationError:
        raise broken() from None
    counts = (facts.rate_hz, facts.channels, facts.frames, facts.duration_s)
    if not all(0 < count < math.inf for count in counts):
        raise broken()
    return facts


def broken() -> Fault:
    """The probe's own failure, whatever the file."""
    return Fault(FaultCode.INTERNAL, "The check of this file was interrupted. Try again.")
