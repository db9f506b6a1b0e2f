"""What a Space says: JSON lines of a few known events. No address, no name, no job's id, no library's own words.

Hugging Face keeps a Space's output and shows it to its owner, so whatever libraries print goes nowhere: the process's
own stdout and stderr are closed once the log has its copy.
"""

from __future__ import annotations

import logging
import os

import structlog

from mastering.worker.logs import LibraryRecords, Log

_LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "gradio", "httpx")


class SpaceLog(Log):
    """The events of a Space, one method each."""

    def __init__(self) -> None:
        super().__init__()
        kept = os.fdopen(os.dup(1), "w", buffering=1)
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=kept))
        self._say = structlog.get_logger()


def close_the_others() -> None:
    """Descriptors 1 and 2 lead nowhere from here on: gradio and the `spaces` package print what they like."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def contain_libraries(log: Log) -> None:
    """After a library has set up its own handlers: they go, and its records come to ours."""
    logging.basicConfig(handlers=[LibraryRecords(log)], level=logging.ERROR, force=True)
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
