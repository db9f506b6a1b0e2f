"""Translates what Spaces report into tier faults: Hub stages, ZeroGPU titles, HTTP statuses, client exceptions. Pure.

Their texts are never passed on: a fault's sentence is one of this module, since a library's may hold an address.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from typing import Any, NamedTuple

from mastering.contract import FaultCode
from router.core import errors
from router.tiers import responses
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, TierFault, fault_of_engine
from router.tiers.port import BackendHealth


class SpaceStage(NamedTuple):
    """The health of a Space at one stage, and the fault of an attempt that meets it; None where it can run."""

    health: BackendHealth
    fault: FaultClass | None


def _not_running(what: str, reported_state: BackendState | None, fault: FaultClass) -> SpaceStage:
    return SpaceStage(BackendHealth(False, what, reported_state=reported_state), fault)


_RUNNING = SpaceStage(BackendHealth(True, "the Hub says that it runs"), None)
STAGES: dict[str, SpaceStage] = {
    "RUNNING": _RUNNING,
    "RUNNING_BUILDING": _RUNNING,
    "RUNNING_APP_STARTING": _RUNNING,
    "SLEEPING": _not_running("asleep", BackendState.SLEEPING, FaultClass.ASLEEP),
    "STOPPED": _not_running("stopped", BackendState.SLEEPING, FaultClass.ASLEEP),
    "BUILDING": _not_running("being built", BackendState.WARMING, FaultClass.ASLEEP),
    "APP_STARTING": _not_running("starting", BackendState.WARMING, FaultClass.ASLEEP),
    "PAUSED": _not_running("paused by its owner", BackendState.PAUSED, FaultClass.CONFIGURATION),
    "NO_APP_FILE": _not_running("without an application file", None, FaultClass.CONFIGURATION),
    "CONFIG_ERROR": _not_running("configured wrongly", None, FaultClass.CONFIGURATION),
    "BUILD_ERROR": _not_running("not to be built", None, FaultClass.CONFIGURATION),
    "RUNTIME_ERROR": _not_running("down after an error of its own", None, FaultClass.CONFIGURATION),
    "DELETING": _not_running("being deleted", None, FaultClass.CONFIGURATION),
}
"""By the Hub's own strings: its client's enumeration lacks one of them and may lack others to come."""

_UNKNOWN = _not_running("in a stage that this router does not know", None, FaultClass.CONFIGURATION)


def stage_of(name: str) -> SpaceStage:
    """The stage by the Hub's name for it; an unknown name counts as a configuration fault."""
    return STAGES.get(name, _UNKNOWN)


FAULTS_BY_TITLE: dict[str, FaultClass] = {
    "ZeroGPU quota exceeded": FaultClass.QUOTA,
    "ZeroGPU pending credits exceeded": FaultClass.QUOTA,
    "ZeroGPU illegal duration": FaultClass.TOO_BIG,
    "ZeroGPU queue timeout": FaultClass.CAPACITY,
    "ZeroGPU client error": FaultClass.CAPACITY,
    "ZeroGPU worker error": FaultClass.BUG,
}
_TITLES_AND_FAULTS = {title.lower(): (title, fault_class) for title, fault_class in FAULTS_BY_TITLE.items()}
_FAULTS_BY_MESSAGE = {
    ("ZeroGPU worker error", "aborted"): FaultClass.CRASH,
    ("ZeroGPU client error", "internal gradio error"): FaultClass.BUG,
}
"""By title and a phrase of the message, where one title covers two faults."""
PENDING_CREDITS_RETRY_S = 60.0
"""Credits held by running tasks are free when those end: within minutes, not with the next day's quota."""
NO_GPU_RETRY_S = 60.0
"""After a whole wait in ZeroGPU's queue without a GPU, another second changes nothing."""
BUSY_RETRY_S = 10.0
"""For a busy Space that names no time itself; each attempt costs it an upload."""
FOREIGN_HOST = "the Space sends its callers to another address"
_TRY_AGAIN = re.compile(r"try again in (?:(\d{1,4}) days?, )?(\d{1,4}):(\d\d):(\d\d)", re.IGNORECASE)


def fault_of_app_error(title: str, message: str) -> TierFault:
    """The fault for an error that Gradio reports with a title."""
    known, fault_class = _TITLES_AND_FAULTS.get(title.strip().lower(), ("", FaultClass.BUG))
    for (of_title, word), other in _FAULTS_BY_MESSAGE.items():
        if known == of_title and word in message.lower():
            fault_class = other
    if not known:
        return TierFault(FaultClass.BUG, "the Space's function failed")
    after_s = NO_GPU_RETRY_S if fault_class is FaultClass.CAPACITY else _retry_after_s(known, message)
    return TierFault(fault_class, known, retry_after_s=after_s)


def _retry_after_s(title: str, message: str) -> float | None:
    if title == "ZeroGPU pending credits exceeded":
        return PENDING_CREDITS_RETRY_S
    found = _TRY_AGAIN.search(message)
    if title != "ZeroGPU quota exceeded" or found is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return max(1.0, ((days * 24 + hours) * 60 + minutes) * 60 + seconds)


_MAX_NUMBERS = 16
"""Of one fault that are kept: a Space may send any number."""
_NUMBER_NAME = re.compile(r"(?!(?:type|title|status|code|detail|headers|self|retry_after_s)$)[a-z][a-z_]{0,31}")
_TIER_LIMITS = frozenset({FaultCode.TOO_LARGE, FaultCode.TOO_LONG, FaultCode.RESOURCE_LIMIT})


def fault_of_space(code: FaultCode, numbers: dict[str, Any] | None = None) -> TierFault:
    """The fault for one that the engine in the Space reported.

    The song is within the router's limits, or it would not have been sent: one that is too large or too long is so for
    this Space alone.
    """
    row, known = errors.TABLE.get(code, errors.TABLE["internal"]), _numbers_in(numbers or {})
    sentence = f"{row.title}: {row.retry}."
    if code in _TIER_LIMITS:
        return TierFault(FaultClass.TOO_BIG, sentence, code=code, numbers=known)
    return fault_of_engine(code, sentence, known)


def _numbers_in(said: dict[str, Any]) -> dict[str, float]:
    """The entries of `said` that are numbers, under names that a Problem does not use itself."""
    some = itertools.islice(said.items(), _MAX_NUMBERS)
    return {name: value for name, value in some if _NUMBER_NAME.fullmatch(name) and isinstance(value, (int, float))}


def fault_of_status(status: int, *, reached: bool, retry_after: str = "", problem: Any = None) -> TierFault:
    """The fault for a response other than success. `reached`: the song was on its way by then."""
    match status:
        case 409 | 429 | 503:
            after_s = responses.retry_after_s(retry_after, BUSY_RETRY_S)
            return TierFault(FaultClass.CAPACITY, "the Space is busy", retry_after_s=after_s)
        case 401 | 403:
            return TierFault(FaultClass.CONFIGURATION, "the Space refused the router's token or key")
        case 404:
            return TierFault(FaultClass.CONFIGURATION, "the Space does not know the protocol's addresses")
        case 413:
            return TierFault(FaultClass.TOO_BIG, "the song is too large for the Space")
        case 400 | 422 if (named := _fault_in_problem(problem)) is not None:
            return named
        case 502 | 504:
            broken = FaultClass.CRASH if reached else FaultClass.UNREACHABLE
            return TierFault(broken, "the Space's host could not reach it")
    return TierFault(FaultClass.BUG, f"the Space answered with status {status}")


def _fault_in_problem(problem: Any) -> TierFault | None:
    """The fault named in a problem document of our own app; None where there is none."""
    try:
        return fault_of_space(FaultCode(problem["code"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def fault_of_client(
    kinds: Collection[str], *, title: str = "", message: str = "", status: int | None = None
) -> TierFault:
    """The fault for an exception of gradio_client: `kinds` are the names of its class and that one's bases."""
    if "AppError" in kinds:
        return fault_of_app_error(title, message)
    if status is not None and status >= 400:
        return fault_of_status(status, reached=True)
    if "ForeignHostError" in kinds:
        return TierFault(FaultClass.CONFIGURATION, FOREIGN_HOST)
    if "QueueError" in kinds or "TooManyRequestsError" in kinds:
        return TierFault(FaultClass.CAPACITY, "the Space's queue is full", retry_after_s=BUSY_RETRY_S)
    if "AuthenticationError" in kinds:
        return TierFault(FaultClass.CONFIGURATION, "the Space refused the router's token or key")
    if "CancelledError" in kinds or "TransportError" in kinds or message == "Server stopped.":
        return TierFault(FaultClass.CRASH, "the connection to the Space broke")
    if "JSONDecodeError" in kinds:
        return TierFault(FaultClass.BUG, "the Space answered with something that is not JSON")
    return TierFault(FaultClass.BUG, "the Space is not one that its client understands")
