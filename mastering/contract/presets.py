"""Delivery targets and styles as data: `presets.toml` beside this file. Light: the router may import it."""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mastering.contract import Fault, FaultCode, Record, Settings


class Target(Record):
    """Where the master is going: how loud it may be there, and how near to full scale."""

    title: str
    purpose: str = Field(alias="for")
    loudness_lufs: float
    ceiling_dbtp: float
    turns: Literal["both", "down", "no"] = "no"
    """What is done there to a master of another loudness: turned up (as far as its peaks allow) and down, down only, or
    left alone."""


class Style(Record):
    """A sound, in what is added to a neutral master at amount 100."""

    title: str
    purpose: str = Field(alias="for")
    curve: tuple[tuple[float, float], ...] = ()
    """(Hz, dB) points of a tone curve, straight over log frequency between them."""
    width_db: Annotated[float, Field(ge=-12, le=6)] = 0.0
    """Gain of the side signal."""
    compression: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0 none, 1 a ratio of 3 from about the mean level up."""
    punch: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How slowly the compressor takes hold, so that attacks come through."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    bass_mono_hz: Annotated[float, Field(ge=0, le=300)] = 0.0


class Presets(Record):
    targets: dict[str, Target]
    styles: dict[str, Style]


@cache
def presets() -> Presets:
    """The presets shipped, with those of the file named by MASTERING_PRESETS added or in their place."""
    known = tomllib.loads(files("mastering.contract").joinpath("presets.toml").read_text("utf-8"))
    if own := os.environ.get("MASTERING_PRESETS"):
        try:
            added = tomllib.loads(Path(own).read_text("utf-8"))
            return Presets.model_validate({kind: known[kind] | added.get(kind, {}) for kind in known})
        except (OSError, ValueError):
            raise Fault(
                FaultCode.BAD_SETTINGS,
                "The file that --presets or MASTERING_PRESETS names is missing or no valid presets file.",
            ) from None
    return Presets.model_validate(known)


def check(settings: Settings) -> None:
    """Raise a BAD_SETTINGS fault, naming what may be chosen, if the target or the style is unknown."""
    for kind, name, known in (
        ("target", settings.target, presets().targets),
        ("style", settings.style, presets().styles),
    ):
        if name not in known:
            choices = ", ".join(sorted(known))
            raise Fault(FaultCode.BAD_SETTINGS, f"There is no {kind} '{name}'. Choose one of: {choices}.")
