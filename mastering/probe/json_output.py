"""Outputs that are JSON: whether one is a single object, in UTF-8, with the keys that are expected."""

from __future__ import annotations

from pydantic_core import from_json

from mastering.contract import Fault, FaultCode
from mastering.contract.kinds import ExpectedJson
from mastering.probe.growing_file import GrowingFile
from mastering.protocol.probe import ProbeRequest, VerifiedJson


def verified_json(request: ProbeRequest, expected: ExpectedJson, file: GrowingFile) -> VerifiedJson:
    """Raises Fault(bad_master) for anything else than `expected`, EOFError where the file does not come."""
    file.wait_for_all()
    if request.expected_bytes not in (None, file.size):
        raise _bad("its size differs from the announced one")
    try:
        found = from_json(bytes(file.data), allow_inf_nan=False, cache_strings=False)
    except ValueError:
        raise _bad("it is not JSON") from None
    if not isinstance(found, dict):
        raise _bad("it is not an object")
    missing = [key for key in expected.keys if key not in found]
    if missing:
        raise _bad(f"it lacks the key {missing[0]}")
    return VerifiedJson(size=file.size)


def _bad(what: str) -> Fault:
    return Fault(FaultCode.BAD_MASTER, f"The output is not the JSON that was expected: {what}.")
