"""The log: JSON lines of a typed allow-list of events. What is not on the list is dropped and counted.

No event has a place for an address, a name, a path, an identifier of a job or a sentence from outside. Records of
the standard library's logging are never formatted: only their logger's name and level pass.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

_NUMBER = (int, float)

EVENTS: dict[str, dict[str, tuple[type, ...]]] = {
    "started": {"tiers": (int,), "resumed": (int,), "wiped": (int,)},
    "stopped": {},
    "http": {"route": (str,), "method": (str,), "status": (int,), "ms": _NUMBER, "size": (str,)},
    "render": {
        "account": (str,),
        "container": (str,),
        "codec": (str,),
        "duration_s": (int,),
        "rate_hz": (int,),
        "channels": (int,),
        "size": (str,),
        "target": (str,),
        "style": (str,),
        "amount_percent": _NUMBER,
        "outputs": (str,),
        "tier": (str,),
        "attempts": (int,),
        "queue_s": _NUMBER,
        "render_s": _NUMBER,
        "outcome": (str,),
    },
    "attempt_failed": {"tier": (str,), "backend": (str,), "fault": (str,)},
    "backend": {"tier": (str,), "backend": (str,), "up": (bool,), "state": (str,)},
    "catalogue": {"ok": (bool,), "backends": (int,)},
    "wiped": {"reason": (str,), "count": (int,)},
    "broken": {"type": (str,), "at": (str,)},
    "library": {"logger": (str,), "level": (str,)},
}
"""Event → its fields and their types. Field values of type str come from our own tables and settings."""

dropped = 0
"""Events and fields that were not on the list, since the start."""


def log(event: str, **fields: Any) -> None:
    """Write one event of the list. Anything else is dropped and counted."""
    global dropped
    allowed = EVENTS.get(event)
    if allowed is None:
        dropped += 1
        return
    kept = {key: value for key, value in fields.items() if key in allowed and isinstance(value, allowed[key])}
    dropped += len(fields) - len(kept)
    structlog.get_logger().info(event, **kept)


def log_exception(error: BaseException) -> None:
    """An exception as its type and the place in the code, never its text."""
    trace, where = error.__traceback__, "unknown"
    while trace:
        where = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
        trace = trace.tb_next
    log("broken", type=type(error).__name__, at=where)


class _LibraryRecords(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log("library", logger=record.name.split(".")[0], level=record.levelname)
        if record.exc_info and record.exc_info[1]:
            log_exception(record.exc_info[1])


def configure() -> None:
    """JSON lines to standard error, to the minute; the standard library's loggers contained."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%MZ", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_LibraryRecords()], level=logging.WARNING, force=True)


def size_bucket(size_bytes: int) -> str:
    """A rough size: the next power of two in MiB."""
    mib = 1
    while mib * 1024 * 1024 < size_bytes:
        mib *= 2
    return f"<={mib}MiB"
