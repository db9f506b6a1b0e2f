"""What the router asks of the probe: one packet of JSON, whose sender is trusted and whose file is not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES, Facts, Fault, FaultCode, Record


class Expected(Record):
    """What a master must be. `tolerance_frames` is for lossy formats, which pad."""

    frames: int
    rate_hz: int
    channels: int
    tolerance_frames: int = 0
    size: int | None = None


class Request(Record):
    """One packet from the router; the descriptors travel beside it."""

    op: Literal["probe", "verify", "selfcheck", "glance"]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    patience_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds of decoding after which only a recording that gives honest amounts of sound may take the rest."""
    max_bytes: Annotated[int, Field(gt=0)] = MAX_INPUT_BYTES
    max_duration_s: Annotated[float, Field(gt=0)] = MAX_DURATION_S
    most_kept_bytes: Annotated[int, Field(gt=0)] | None = None
    """Of a feed of known size: a child that must keep more gives up, and is asked when all is there."""
    memory_bytes: Annotated[int, Field(gt=0)] = 1024 * 1024 * 1024
    size: Annotated[int, Field(ge=0)] | None = None
    """Of the feed in bytes, where the caller knows it: then it is heard while it comes."""
    expected: Expected | None = None

    @property
    def is_standing(self) -> bool:
        """Whether its child serves until its caller hangs up."""
        return self.op == "glance"

    def answer(self, facts: Facts, size: int) -> dict[str, Any]:
        """What is answered of a file of `size` bytes that is sound. Raises Fault(bad_master) where it is another one
        than expected."""
        if self.expected is None:
            return facts.model_dump()
        _refuse_another(self.expected, facts, size)
        return {**facts.model_dump(), "size": size}


def _refuse_another(expected: Expected, facts: Facts, size: int) -> None:
    off_by = abs(facts.frames - expected.frames)
    wrong = [
        what
        for what, is_wrong in {
            "length": off_by > expected.tolerance_frames,
            "sample rate": facts.rate_hz != expected.rate_hz,
            "number of channels": facts.channels != expected.channels,
            "size": expected.size not in (None, size),
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
