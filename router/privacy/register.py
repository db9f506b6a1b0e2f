"""The register of the service's promises (register.toml), read by `router privacy selfcheck` and docs/privacy.md."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Promise(BaseModel):
    """One promise to the people whose songs these are, and what keeps it: tests, a check, or a reason for neither."""

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
