"""The kinds of jobs that are known here: those of this project, and an installation's own.

`MASTERING_KINDS` names those of one's own, as module:NAME, separated by commas: each a `JobKind`, which the router, the
workers and the Spaces must all know. Light, as all of the contract: the router imports it.
"""

from __future__ import annotations

import importlib
import os
import re
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
    "WrongVariableError",
    "job_kind",
    "job_kinds",
]

VARIABLE = "MASTERING_KINDS"
"""The environment variable with an installation's own kinds."""


class WrongVariableError(ValueError):
    """MASTERING_KINDS does not name kinds of jobs; the text says in a line what is wrong with it."""


@cache
def job_kinds() -> Mapping[str, JobKind[Any]]:
    """All kinds by name. Raises WrongVariableError."""
    own = [path.strip() for path in os.environ.get(VARIABLE, "").split(",") if path.strip()]
    kinds: list[JobKind[Any]] = [MASTER, *map(_imported, own)]
    known = {kind.name: kind for kind in kinds}
    fields = [field for kind in kinds for field in kind.log_fields]
    if len(known) < len(kinds):
        raise WrongVariableError(f"{VARIABLE} names a kind of job whose name is taken.")
    if len(set(fields)) < len(fields):
        raise WrongVariableError(f"{VARIABLE} names a kind of job with a field of the log that another kind has.")
    return MappingProxyType(known)


def job_kind(name: str) -> JobKind[Any]:
    """The kind of this name. Raises Fault(bad_settings), which says which there are."""
    kind = job_kinds().get(name)
    if kind is None:
        sentence = f"There is no kind of job '{name[:16]}'. Choose one of: {', '.join(job_kinds())}."
        raise Fault(FaultCode.BAD_SETTINGS, sentence, field="kind")
    return kind


def _imported(path: str) -> JobKind[Any]:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not isinstance(found, JobKind):
        raise WrongVariableError(f"{VARIABLE}: {path} can't be imported, or is no JobKind. Write module:NAME.")
    names = {KIND_NAME: [found.name], OUTPUT_NAME: found.outputs, STAGE_NAME: found.stages}
    for pattern, given in names.items():
        if wrong := [one for one in given if not re.fullmatch(pattern, one)]:
            raise WrongVariableError(
                f"{VARIABLE}: {path} has the name '{wrong[0]}', which is not of the form {pattern}."
            )
    return found
