"""The protocol of the probe: what the router asks of the sandboxed processes, and what they answer. No I/O here.

On the control socket (SOCK_SEQPACKET) the fork server says a `Hello` once; then each packet is a `ProbeRequest` as
JSON, with a stream socket beside it: the conversation with the child that answers. There the fork server writes TAKEN,
the router writes the file's bytes, and the child writes one line of JSON, a `ProbeAnswer`.

A `wav_headers` child stays until its caller hangs up. It is asked in the same conversation again and again: the two
sizes of `WAV_HEADER_SIZES`, a ProbeRequest, the beginning of a file. Each time it writes a line: a `ProbeAnswer`, or
null where the beginning does not settle what the file is.

Who sends a request is trusted, the file is not: the file may have taken the child over that answers. So the router
bounds the size of what it reads and validates all of it by these models.
"""

from __future__ import annotations

import struct
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES, Facts, Fault, FaultCode, Record
from mastering.contract.kinds import ExpectedAudio, ExpectedOutput

MAX_REQUEST_BYTES = 16 * 1024
"""Of a request's packet; one has a few hundred."""
MAX_HELLO_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024
"""Of a line; an honest one has a few hundred bytes."""
TAKEN = b"+\n"
"""The fork server's word that a request has arrived: nothing of the file is sent before."""
WAV_HEADER_SIZES = struct.Struct("!II")
"""Bytes of the request, and of the file's beginning behind it."""
MAX_WAV_BEGINNING_BYTES = 1024 * 1024
"""Of a file's beginning that a `wav_headers` child is shown; it keeps room for it all along."""


class ProbeRequest(Record):
    """One packet from the router."""

    op: Literal["probe", "verify", "selfcheck", "wav_headers"]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    patience_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds of decoding after which only a recording that gives honest amounts of sound may take the rest."""
    max_bytes: Annotated[int, Field(gt=0)] = MAX_INPUT_BYTES
    max_duration_s: Annotated[float, Field(gt=0)] = MAX_DURATION_S
    most_kept_bytes: Annotated[int, Field(gt=0)] | None = None
    """Of a file of known size: a child that must keep more of it gives up, and is asked when all is there."""
    memory_bytes: Annotated[int, Field(gt=0)] = 1024 * 1024 * 1024
    size: Annotated[int, Field(ge=0)] | None = None
    """Of the file in bytes, where the caller knows it: then it is decoded while it arrives."""
    expected: ExpectedOutput | None = None
    """What an output must be that is verified."""
    expected_bytes: Annotated[int, Field(ge=0)] | None = None
    """Its size, where that is known."""

    @property
    def is_long_lived(self) -> bool:
        """Whether its child serves until its caller hangs up."""
        return self.op == "wav_headers"


class VerifiedAudio(Facts):
    """Facts of an output that is audio: sound, whole, and what was expected."""

    size: int
    """In bytes."""


class VerifiedJson(Record):
    """An output that is JSON, and what was expected."""

    size: int
    """In bytes."""


class SandboxChecks(Record):
    """What a sandboxed child tried that it must not be able to do."""

    refused: dict[str, bool]


AnswerT = TypeVar("AnswerT", Facts, VerifiedAudio, VerifiedJson, SandboxChecks)


class Hello(Record):
    """The fork server is ready. `ready`: the layers of its sandbox, each with whether it is in force."""

    ready: dict[Annotated[str, Field(max_length=64)], bool]


class ProbeFault(Record):
    """Why there is nothing else to say, in the words of `mastering.contract.Fault`."""

    code: FaultCode
    message: Annotated[str, Field(max_length=500)]
    numbers: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")],
        int | float | Annotated[str, Field(max_length=500)],
    ]


class ProbeAnswer(Record, Generic[AnswerT]):
    """A child's one answer: either what was asked for, or a fault."""

    ok: AnswerT | None = None
    fault: ProbeFault | None = None


def verified_audio(facts: Facts, size: int, request: ProbeRequest) -> VerifiedAudio:
    """The facts of an output of `size` bytes. Raises Fault(bad_master) where it is another one than `request` says."""
    expected = request.expected
    if not isinstance(expected, ExpectedAudio):
        raise Fault(FaultCode.BAD_MASTER, "The output is audio, and none was expected.")
    off_by = abs(facts.frames - expected.frames)
    wrong = [
        what
        for what, is_wrong in {
            "length": off_by > expected.tolerance_frames,
            "sample rate": facts.rate_hz != expected.rate_hz,
            "number of channels": facts.channels != expected.channels,
            "size": request.expected_bytes not in (None, size),
        }.items()
        if is_wrong
    ]
    if wrong:
        raise Fault(
            FaultCode.BAD_MASTER,
            f"The master is not the one that was announced: its {', '.join(wrong)} differs.",
            frames=facts.frames,
            expected_frames=expected.frames,
        )
    return VerifiedAudio(**facts.model_dump(), size=size)
