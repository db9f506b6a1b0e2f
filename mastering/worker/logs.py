"""What a worker says: JSON lines of a few known events. No path, no name, no address, no library's own words.

Records of the standard library (uvicorn's, asyncio's) are never formatted: of an error its type and its place in the
code are kept, of anything else nothing.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import structlog


class Log:
    """The events of a worker, one method each."""

    def __init__(self) -> None:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%MZ", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            cache_logger_on_first_use=True,
        )
        self._say = structlog.get_logger()

    def listening(self, port: int, concurrency: int) -> None:
        self._say.info("listening", port=port, concurrency=concurrency)

    def stopping(self) -> None:
        self._say.info("stopping")

    def stopped(self) -> None:
        self._say.info("stopped")

    def render_ended(self, outcome: str, seconds: float) -> None:
        self._say.info("render ended", outcome=str(outcome), seconds=round(seconds, 1))

    def library_error(self, error: str, where: str) -> None:
        self._say.error("library error", error=error, where=where)


class LibraryRecords(logging.Handler):
    """Takes the standard library's log records: an exception becomes its type and code location."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.ERROR)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None or record.exc_info[0] is None:
            self._log.library_error(record.name, f"{Path(record.pathname).name}:{record.lineno}")
            return
        frames = traceback.extract_tb(record.exc_info[2])
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        self._log.library_error(record.exc_info[0].__name__, where)


def install(log: Log) -> None:
    """Make `log` the only way out of the process."""
    logging.basicConfig(handlers=[LibraryRecords(log)], level=logging.ERROR, force=True)
