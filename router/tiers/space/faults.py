"""What a Space's words mean for routing: the Hub's stages, ZeroGPU's titles, statuses, what its client raises. Pure.

The texts themselves stay behind: a fault's sentence is one of ours, for a library's may hold an address or a path.
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
from router.tiers.policy.faults import FaultClass, TierFault, of_engine
from router.tiers.port import BackendHealth


class SpaceStage(NamedTuple):
    """What a stage says of the Space, and what an attempt that meets it comes to."""

    health: BackendHealth
    fault: FaultClass | None


def _stage(what: str, resting: BackendState | None, fault: FaultClass) -> SpaceStage:
    return SpaceStage(BackendHealth(False, what, resting=resting), fault)


_RUNNING = SpaceStage(BackendHealth(True, "the Hub says that it runs"), None)
STAGES: dict[str, SpaceStage] = {
    "RUNNING": _RUNNING,
    "RUNNING_BUILDING": _RUNNING,
    "RUNNING_APP_STARTING": _RUNNING,
    "SLEEPING": _stage("asleep", BackendState.SLEEPING, FaultClass.ASLEEP),
    "STOPPED": _stage("stopped", BackendState.SLEEPING, FaultClass.ASLEEP),
    "BUILDING": _stage("being built", BackendState.WARMING, FaultClass.ASLEEP),
    "APP_STARTING": _stage("starting", BackendState.WARMING, FaultClass.ASLEEP),
    "PAUSED": _stage("paused by its owner", BackendState.PAUSED, FaultClass.CONFIGURATION),
    "NO_APP_FILE": _stage("without an application file", None, FaultClass.CONFIGURATION),
    "CONFIG_ERROR": _stage("configured wrongly", None, FaultClass.CONFIGURATION),
    "BUILD_ERROR": _stage("not to be built", None, FaultClass.CONFIGURATION),
    "RUNTIME_ERROR": _stage("down after an error of its own", None, FaultClass.CONFIGURATION),
    "DELETING": _stage("being deleted", None, FaultClass.CONFIGURATION),
}
"""By the Hub's own strings: the client's enumeration lacks one of them and may lack the next."""

_UNKNOWN = _stage("in a stage that this router does not know", None, FaultClass.CONFIGURATION)


def stage_of(name: str) -> SpaceStage:
    return STAGES.get(name, _UNKNOWN)


TITLES: dict[str, FaultClass] = {
    "ZeroGPU quota exceeded": FaultClass.QUOTA,
    "ZeroGPU pending credits exceeded": FaultClass.QUOTA,
    "ZeroGPU illegal duration": FaultClass.TOO_BIG,
    "ZeroGPU queue timeout": FaultClass.CAPACITY,
    "ZeroGPU client error": FaultClass.CAPACITY,
    "ZeroGPU worker error": FaultClass.BUG,
}
_TITLES = {title.lower(): (title, fault_class) for title, fault_class in TITLES.items()}
_OTHERWISE = {
    ("ZeroGPU worker error", "aborted"): FaultClass.CRASH,
    ("ZeroGPU client error", "internal gradio error"): FaultClass.BUG,
}
"""A title that covers two things, told apart by a word of its message."""
PENDING_CREDITS_S = 60.0
"""Credits that running tasks hold come back when those end: within minutes, not at the day's turn."""
NO_GPU_S = 60.0
"""When none was to be had after a whole wait in ZeroGPU's queue, another second changes nothing."""
BUSY_S = 10.0
"""The rest of a busy Space that names none itself; each try costs it an upload."""
ELSEWHERE = "the Space sends its callers to another address"
_TRY_AGAIN = re.compile(r"try again in (?:(\d{1,4}) days?, )?(\d{1,4}):(\d\d):(\d\d)", re.IGNORECASE)


def of_app_error(title: str, message: str) -> TierFault:
    """What an error that Gradio reports with a title comes to."""
    known, fault_class = _TITLES.get(title.strip().lower(), ("", FaultClass.BUG))
    for (of_title, word), other in _OTHERWISE.items():
        if known == of_title and word in message.lower():
            fault_class = other
    if not known:
        return TierFault(FaultClass.BUG, "the Space's function failed")
    after_s = NO_GPU_S if fault_class is FaultClass.CAPACITY else _retry_after_s(known, message)
    return TierFault(fault_class, known, retry_after_s=after_s)


def _retry_after_s(title: str, message: str) -> float | None:
    if title == "ZeroGPU pending credits exceeded":
        return PENDING_CREDITS_S
    found = _TRY_AGAIN.search(message)
    if title != "ZeroGPU quota exceeded" or found is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return max(1.0, ((days * 24 + hours) * 60 + minutes) * 60 + seconds)


_MOST_NUMBERS = 16
_NUMBER = re.compile(r"(?!(?:type|title|status|code|detail|headers|self|retry_after_s)$)[a-z][a-z_]{0,31}")
_TIER_LIMITS = frozenset({FaultCode.TOO_LARGE, FaultCode.TOO_LONG, FaultCode.RESOURCE_LIMIT})


def of_space(code: FaultCode, numbers: dict[str, Any] | None = None) -> TierFault:
    """A fault that the engine in the Space reported. The song is within the router's limits, or it would not have
    been sent: one that is too large or too long is so for this Space alone."""
    row, known = errors.TABLE.get(code, errors.TABLE["internal"]), _numbers_in(numbers or {})
    sentence = f"{row.title}: {row.retry}."
    if code in _TIER_LIMITS:
        return TierFault(FaultClass.TOO_BIG, sentence, code=code, numbers=known)
    return of_engine(code, sentence, known)


def _numbers_in(said: dict[str, Any]) -> dict[str, float]:
    """Numbers alone, and under names that an error of ours does not use itself."""
    some = itertools.islice(said.items(), _MOST_NUMBERS)
    return {name: value for name, value in some if _NUMBER.fullmatch(name) and isinstance(value, (int, float))}


def of_status(status: int, *, reached: bool, retry_after: str = "", problem: Any = None) -> TierFault:
    """What an answer other than the hoped-for one comes to. `reached`: the song was on its way by then."""
    match status:
        case 409 | 429 | 503:
            after_s = responses.seconds(retry_after, BUSY_S)
            return TierFault(FaultClass.CAPACITY, "the Space is busy", retry_after_s=after_s)
        case 401 | 403:
            return TierFault(FaultClass.CONFIGURATION, "the Space refused the router's token or key")
        case 404:
            return TierFault(FaultClass.CONFIGURATION, "the Space does not know the protocol's addresses")
        case 413:
            return TierFault(FaultClass.TOO_BIG, "the song is too large for the Space")
        case 400 | 422 if (own := _own_words(problem)) is not None:
            return own
        case 502 | 504:
            broken = FaultClass.CRASH if reached else FaultClass.UNREACHABLE
            return TierFault(broken, "the Space's host could not reach it")
    return TierFault(FaultClass.BUG, f"the Space answered with status {status}")


def _own_words(problem: Any) -> TierFault | None:
    try:
        return of_space(FaultCode(problem["code"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def of_client(kinds: Collection[str], *, title: str = "", message: str = "", status: int | None = None) -> TierFault:
    """What an exception of gradio_client comes to: `kinds` are the names of its class and of that one's parents."""
    if "AppError" in kinds:
        return of_app_error(title, message)
    if status is not None and status >= 400:
        return of_status(status, reached=True)
    if "ElsewhereError" in kinds:
        return TierFault(FaultClass.CONFIGURATION, ELSEWHERE)
    if "QueueError" in kinds or "TooManyRequestsError" in kinds:
        return TierFault(FaultClass.CAPACITY, "the Space's queue is full", retry_after_s=BUSY_S)
    if "AuthenticationError" in kinds:
        return TierFault(FaultClass.CONFIGURATION, "the Space refused the router's token or key")
    if "CancelledError" in kinds or "TransportError" in kinds or message == "Server stopped.":
        return TierFault(FaultClass.CRASH, "the connection to the Space broke")
    if "JSONDecodeError" in kinds:
        return TierFault(FaultClass.BUG, "the Space answered with something that is not JSON")
    return TierFault(FaultClass.BUG, "the Space is not one that its client understands")
