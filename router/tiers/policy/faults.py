"""The classes of faults that end an attempt, and what follows from each, in one table."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from mastering.contract import USER_FAULTS, FaultCode, accepted_numbers


class FaultClass(StrEnum):
    """What kind of fault ended an attempt; CONSEQUENCES has an example of each."""

    USER = "user"
    TOO_BIG = "too_big"
    UNSUPPORTED = "unsupported"
    CAPACITY = "capacity"
    QUOTA = "quota"
    UNREACHABLE = "unreachable"
    CRASH = "crash"
    BUG = "bug"
    CONFIGURATION = "configuration"
    ASLEEP = "asleep"
    BAD_OUTPUT = "bad_output"
    DEADLINE = "deadline"
    OURS = "ours"
    ROOM = "room"


class NextStep(StrEnum):
    """Where the job goes after a fault."""

    STOP = "stop"
    """The job ends with an error: it would fail in every tier."""
    ANOTHER_BACKEND = "another_backend"
    """Another backend of the tier if there is one, else the next tier."""
    NEXT_TIER = "next_tier"
    WAIT_OR_NEXT_TIER = "wait_or_next_tier"
    """Honour Retry-After if nothing else is free."""


class Consequence(NamedTuple):
    """A row of the table: where the job goes next, and who bears the fault."""

    next: NextStep
    counts: bool
    """As a failure of the backend, in its breaker."""
    spends: bool
    """One of the faulted attempts that the job may have."""
    death: bool
    """The backend may have died of the job: after two such the job ends with the error `poison`."""
    example: str


CONSEQUENCES: dict[FaultClass, Consequence] = {
    FaultClass.USER: Consequence(NextStep.STOP, False, False, False, "undecodable, bad setting, too long, 413, 422"),
    FaultClass.TOO_BIG: Consequence(NextStep.NEXT_TIER, False, False, False, "ZeroGPU 'illegal duration', a size cap"),
    FaultClass.UNSUPPORTED: Consequence(NextStep.NEXT_TIER, False, False, False, "a kind of job that it does not do"),
    FaultClass.CAPACITY: Consequence(NextStep.WAIT_OR_NEXT_TIER, False, False, False, "409, 429, 503, queue full"),
    FaultClass.QUOTA: Consequence(NextStep.NEXT_TIER, False, False, False, "ZeroGPU quota, credits, runs limit"),
    # The job never arrived, so it is not to blame and loses none of its attempts by an outage.
    FaultClass.UNREACHABLE: Consequence(
        NextStep.ANOTHER_BACKEND, True, False, False, "refused, no route, bad handshake"
    ),
    FaultClass.CRASH: Consequence(NextStep.ANOTHER_BACKEND, True, True, True, "reset, silent, lease lost, stalled"),
    FaultClass.BUG: Consequence(NextStep.ANOTHER_BACKEND, True, True, True, "500, out of memory"),
    FaultClass.CONFIGURATION: Consequence(NextStep.NEXT_TIER, True, False, False, "401, paused, a build error"),
    FaultClass.ASLEEP: Consequence(NextStep.NEXT_TIER, False, False, False, "sleeping, stopped, starting"),
    FaultClass.BAD_OUTPUT: Consequence(NextStep.ANOTHER_BACKEND, True, True, True, "wrong length, silent, corrupt"),
    FaultClass.DEADLINE: Consequence(NextStep.STOP, False, False, False, "the job's time is over, or it was cancelled"),
    # The render was good and had nowhere to go: the job waits until others have made room.
    FaultClass.ROOM: Consequence(
        NextStep.WAIT_OR_NEXT_TIER, False, False, False, "no room in the spool for the master"
    ),
    # Spent, so that a bug of ours can't repeat a job for ever; no backend is blamed.
    FaultClass.OURS: Consequence(NextStep.ANOTHER_BACKEND, False, True, False, "the router's own probe or code broke"),
}

_BY_CODE = {
    FaultCode.BUSY: FaultClass.CAPACITY,
    FaultCode.DEADLINE: FaultClass.DEADLINE,
    FaultCode.CANCELLED: FaultClass.CRASH,  # not asked for from here: the worker gave the render up
    FaultCode.OUT_OF_MEMORY: FaultClass.BUG,
    FaultCode.BAD_MASTER: FaultClass.BUG,
    FaultCode.BAD_REQUEST: FaultClass.CONFIGURATION,
    FaultCode.UNKNOWN_KIND: FaultClass.UNSUPPORTED,
    FaultCode.INTERNAL: FaultClass.BUG,
}


class TierFault(Exception):
    """An attempt failed. `detail` is a phrase for the record, written here: no address, no path, no library's text."""

    def __init__(
        self,
        fault_class: FaultClass,
        detail: str,
        *,
        code: FaultCode | None = None,
        retry_after_s: float | None = None,
        numbers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{fault_class}: {detail}")
        self.fault_class = fault_class
        self.detail = detail
        self.code = code
        self.retry_after_s = retry_after_s
        self.numbers: dict[str, Any] = dict(accepted_numbers(numbers or {}))

    @property
    def consequence(self) -> Consequence:
        return CONSEQUENCES[self.fault_class]


def fault_of_engine(code: FaultCode, message: str, numbers: dict[str, Any] | None = None) -> TierFault:
    """The tier fault for a fault that the engine itself reported."""
    fault_class = FaultClass.USER if code in USER_FAULTS else _BY_CODE[code]
    return TierFault(fault_class, message, code=code, numbers=numbers)
