"""Which kinds of jobs this machine does, and at which paces: those whose modules are installed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from mastering.contract import Fault, FaultCode
from mastering.contract.kinds import JobKind, job_kinds


@cache
def served_kinds() -> Mapping[str, JobKind[Any]]:
    """By name. What is installed does not change while a worker runs."""
    return {name: kind for name, kind in job_kinds().items() if all(map(find_spec, kind.modules))}


def served_kind(name: str) -> JobKind[Any]:
    """The kind of this name. Raises Fault(unknown_kind), which says which ones are served here."""
    kind = served_kinds().get(name)
    if kind is None:
        known = ", ".join(served_kinds())
        raise Fault(FaultCode.UNKNOWN_KIND, f"Jobs of the kind '{name}' are not done here, only: {known}.")
    return kind


@cache
def served_paces() -> dict[str, list[str]]:
    """Kind → the paces that can be done here, for the health that callers ask for."""
    return {
        name: [pace for pace in kind.paces if all(map(find_spec, kind.pace_modules.get(pace, ())))]
        for name, kind in served_kinds().items()
    }


def model_digests() -> dict[str, dict[str, str]]:
    """Kind → model → digest, for the health that callers ask for: by it they know what they may send here."""
    return {name: dict(kind.models) for name, kind in served_kinds().items()}
