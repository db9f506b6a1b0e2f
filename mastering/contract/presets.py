"""Delivery targets and styles as data: `presets.toml` beside this file. Light: the router may import it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from mastering.contract import Fault, FaultCode, Record, Settings
from mastering.contract.board import PROCESSORS, Processor


class Target(Record):
    """Where the master is going: how loud it may be there, and how near to full scale."""

    title: str
    purpose: str = Field(alias="for")
    loudness_lufs: Annotated[float, Field(ge=-36, le=-5)]
    ceiling_dbtp: Annotated[float, Field(ge=-9, le=0)]
    turns: Literal["both", "down", "no"] = "no"
    """What is done there to a master of another loudness: turned up (as far as its peaks allow) and down, down only, or
    left alone."""


class Style(Record):
    """A sound, in what is added to a neutral master at amount 100."""

    title: str
    purpose: str = Field(alias="for")
    board: Annotated[tuple[Processor, ...], Field(max_length=32)] = ()
    """Filters and effects, one after the other. Those that depend on the level get the song at −18 LUFS."""
    compression: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0 none, 1 a ratio of 3 from about the mean level up."""
    punch: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How slowly the compressor takes hold, so that attacks come through."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    bass_mono_hz: Annotated[float, Field(ge=0, le=300)] = 0.0
    """Below it the bass is mono where that takes little of it; 0 keeps it as wide as it is."""

    @model_validator(mode="before")
    @classmethod
    def _tell_what_became_of_older_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and {"curve", "width_db"} & data.keys():
            raise ValueError("a curve is written as filters of a board now, a width as a Gain on the side")
        return data


class Presets(Record):
    targets: dict[str, Target]
    styles: dict[str, Style]


@cache
def presets() -> Presets:
    """The presets shipped, with those of the file named by MASTERING_PRESETS added or in their place."""
    known = tomllib.loads(files("mastering.contract").joinpath("presets.toml").read_text("utf-8"))
    if own := os.environ.get("MASTERING_PRESETS"):
        return _with_own(known, own)
    return Presets.model_validate(known)


def _with_own(known: dict[str, Any], path: str) -> Presets:
    """Raises Fault(bad_settings), which names the line."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError):
        raise _bad_file("is missing, or no text in UTF-8.") from None
    try:
        added = tomllib.loads(text)
        merged = {kind: table | added.pop(kind, {}) for kind, table in known.items()}
        return Presets.model_validate(merged | added)
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for part in first["loc"] if part not in PROCESSORS]
        name = ".".join(map(str, place))
        raise _bad_file(f"is wrong in line {line_of(text, place)}, {name}: {first['msg']}.") from None
    except tomllib.TOMLDecodeError as error:
        raise _bad_file(f"is no TOML: {error}.") from None
    except (TypeError, AttributeError, RecursionError):
        raise _bad_file("needs tables [targets.name] and [styles.name].") from None


def _bad_file(what: str) -> Fault:
    return Fault(FaultCode.BAD_SETTINGS, f"The file that --presets or MASTERING_PRESETS names {what}")


def line_of(text: str, place: Sequence[str | int]) -> int:
    """The number of the line after which the value at `place` (keys and indices) is there; where it lacks, its table's.

    tomllib keeps no lines, so the text is read up to each of its lines, arrays and tables that are still open closed.
    """
    lines = text.splitlines()
    for depth in range(len(place), 0, -1):
        for number in range(1, len(lines) + 1):
            start = "\n".join(lines[:number])
            if any(_has(start + closing, place[:depth]) for closing in ("", "]", "}]")):
                return number
    return 1


def _has(text: str, place: Sequence[str | int]) -> bool:
    try:
        value: Any = tomllib.loads(text)
        for part in place:
            value = value[part]
    except (tomllib.TOMLDecodeError, LookupError, TypeError):
        return False
    return True


def check(settings: Settings) -> None:
    """Raise a BAD_SETTINGS fault, naming what may be chosen, if the target or the style is unknown."""
    for kind, name, known in (
        ("target", settings.target, presets().targets),
        ("style", settings.style, presets().styles),
    ):
        if name not in known:
            choices = ", ".join(sorted(known))
            raise Fault(FaultCode.BAD_SETTINGS, f"There is no {kind} '{name}'. Choose one of: {choices}.")
