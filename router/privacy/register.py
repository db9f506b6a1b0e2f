"""The register of promises: one file of data, read by `selfcheck` and by the page docs/privacy.md."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Promise(BaseModel):
    """One promise, and where it is looked after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: Literal["S", "P", "L"]
    says: str
    tests: tuple[str, ...] = ()
    """Tests beside those named after its id."""
    check: str | None = None
    """The part of `router privacy selfcheck` that looks at it."""
    reason: str | None = None
    """Why an S promise has no test."""


@cache
def promises() -> dict[str, Promise]:
    """Every promise by its id, in order."""
    found = tomllib.loads(files("router.privacy").joinpath("register.toml").read_text("utf-8"))
    return {name: Promise(id=name, **entry) for name, entry in found.items()}
