"""What an operator has told each backend to do, kept over restarts: a port; the durable store stands behind it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Mode(StrEnum):
    READY = "ready"
    DRAINING = "draining"
    """It gets no new jobs and finishes those it has."""
    MAINTENANCE = "maintenance"
    """It gets no new jobs, and those it has go elsewhere at once."""


class Modes(Protocol):
    def load(self) -> Mapping[str, Mode]:
        """By the backend's name; who is not named is ready."""
        ...

    def save(self, name: str, mode: Mode) -> None: ...


class NoModes:
    """Forgets with the process."""

    def load(self) -> Mapping[str, Mode]:
        return {}

    def save(self, name: str, mode: Mode) -> None:
        return
