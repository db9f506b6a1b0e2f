"""The mode that an operator has set for each backend, and the port by which it is kept over restarts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Mode(StrEnum):
    """Whether a backend gets jobs, as far as the operator has a say."""

    READY = "ready"
    DRAINING = "draining"
    """It gets no new jobs and finishes those it has."""
    MAINTENANCE = "maintenance"
    """It gets no new jobs, and those it has are stopped and go elsewhere at once."""


class ModeStore(Protocol):
    """Keeps the modes; the router's is the accounts' database."""

    def load(self) -> Mapping[str, Mode]:
        """The modes by the backend's name, as they were read at the start; one that is not named is ready."""
        ...

    async def save(self, name: str, mode: Mode) -> None: ...


class UnsavedModes:
    """Keeps nothing: for tests and for a fleet without operators."""

    def load(self) -> Mapping[str, Mode]:
        return {}

    async def save(self, name: str, mode: Mode) -> None:
        return
