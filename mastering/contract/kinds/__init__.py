"""The kinds of jobs that are known here: those of this project, and an installation's own.

`MASTERING_KINDS` names those of one's own, as module:NAME, separated by commas: each a `JobKind`, which the router, the
workers and the Spaces must all know. Light, as all of the contract: the router imports it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from mastering.contract.faults import Fault, FaultCode
from mastering.contract.kinds.kind import (
    KIND_NAME,
    OUTPUT_NAME,
    STAGE_NAME,
    ExpectedAudio,
    ExpectedJson,
    ExpectedOutput,
    JobKind,
    LogField,
    OutputType,
)
from mastering.contract.kinds.master import MASTER
from mastering.contract.records import JobOptions

__all__ = [
    "KIND_NAME",
    "MASTER",
    "OUTPUT_NAME",
    "STAGE_NAME",
    "VARIABLE",
    "ExpectedAudio",
    "ExpectedJson",
    "ExpectedOutput",
    "JobKind",
    "JobOptions",
    "LogField",
    "OutputType",
    "job_kind",
    "job_kinds",
]

VARIABLE = "MASTERING_KINDS"
"""The environment variable with an installation's own kinds."""


@cache
def job_kinds() -> Mapping[str, JobKind[Any]]:
    """All kinds by name. Raises ImportError, AttributeError or ValueError where MASTERING_KINDS names none."""
    own = [path.strip() for path in os.environ.get(VARIABLE, "").split(",") if path.strip()]
    kinds: list[JobKind[Any]] = [MASTER, *map(_imported, own)]
    known = {kind.name: kind for kind in kinds}
    fields = [field for kind in kinds for field in kind.log_fields]
    if len(known) < len(kinds) or len(set(fields)) < len(fields):
        raise ValueError(f"{VARIABLE} names a kind, or one a field of the log, that is there already")
    return MappingProxyType(known)


def job_kind(name: str) -> JobKind[Any]:
    """The kind of this name. Raises Fault(bad_settings), which says which there are."""
    kind = job_kinds().get(name)
    if kind is None:
        known = ", ".join(job_kinds())
        raise Fault(
            FaultCode.BAD_SETTINGS, f"There is no kind of job '{name[:16]}'. Choose one of: {known}.", field="kind"
        )
    return kind


def _imported(path: str) -> JobKind[Any]:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, JobKind):
        raise ValueError(f"{VARIABLE}: {path} is not a JobKind")  # noqa: TRY004 — a value of the variable is wrong
    return found
