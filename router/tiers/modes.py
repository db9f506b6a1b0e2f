"""What an operator has told each backend to do, kept over restarts: a port, and one small file behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
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

    def save(self, modes: Mapping[str, Mode]) -> None: ...


class NoModes:
    """Forgets with the process."""

    def load(self) -> Mapping[str, Mode]:
        return {}

    def save(self, modes: Mapping[str, Mode]) -> None:
        return


class ModesFile:
    """A JSON object of names and modes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Mapping[str, Mode]:
        """Raises ValueError when the file is there but is not ours."""
        if not self._path.exists():
            return {}
        found = json.loads(self._path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not an object of names and modes")  # noqa: TRY004 — one kind of damage, one error
        return {str(name): Mode(mode) for name, mode in found.items()}

    def save(self, modes: Mapping[str, Mode]) -> None:
        """Replace the file as a whole, so that a crash leaves the old or the new."""
        kept = {name: mode.value for name, mode in sorted(modes.items()) if mode is not Mode.READY}
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(kept), "utf-8")
        beside.replace(self._path)
