"""Delivery targets and styles as data: `presets.toml` beside this file. Light: the router may import it."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from pydantic import Field

from mastering.contract import Fault, FaultCode, Record, Settings


class Target(Record):
    """Where the master is going: how loud it may be there, and how near to full scale."""

    title: str
    purpose: str = Field(alias="for")
    loudness_lufs: float
    ceiling_dbtp: float


class Style(Record):
    title: str
    purpose: str = Field(alias="for")


class Presets(Record):
    targets: dict[str, Target]
    styles: dict[str, Style]


@cache
def presets() -> Presets:
    return Presets.model_validate(tomllib.loads(files("mastering").joinpath("presets.toml").read_text("utf-8")))


def check(settings: Settings) -> None:
    """Raise a BAD_SETTINGS fault, naming what may be chosen, if the target or the style is unknown."""
    for kind, name, known in (
        ("target", settings.target, presets().targets),
        ("style", settings.style, presets().styles),
    ):
        if name not in known:
            raise Fault(FaultCode.BAD_SETTINGS, f"There is no {kind} '{name}'. Choose one of: {', '.join(sorted(known))}.")
