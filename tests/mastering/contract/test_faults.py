"""A fault's numbers from another process: what is believed of them."""

from __future__ import annotations

from typing import Any

import pytest

from mastering.contract import Fault, FaultCode, accepted_numbers

FORGED: dict[str, dict[Any, Any]] = {
    "members of a problem": dict.fromkeys(
        ("code", "detail", "headers", "instance", "message", "numbers", "self", "status", "title", "type"), 1
    ),
    "no words": {"a": float("nan"), "b": float("inf"), "c": None, "d": [1], "e": {"f": 1}, "g": True, "h": 10**400},
    "no names": {"A": 1, "": 1, "a b": 1, "a" * 33: 1, "ä": 1, 7: 1, "_a": 1},
    "a time that is no number": {"retry_after_s": "soon"},
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_honest_fault_has_is_dropped(what: str) -> None:
    assert accepted_numbers({**FORGED[what], "at_s": 1.5}) == {"at_s": 1.5}


def test_numbers_are_few_and_short() -> None:
    many = accepted_numbers({f"n{number}": "x" * 10_000 for number in range(10_000)})
    assert len(many) == 16
    assert set(many.values()) == {"x" * 100}


def test_what_is_accepted_makes_a_fault() -> None:
    forged = {name: "x" for names in FORGED.values() for name in names}
    said = {**forged, "at_s": 3, "retry_after_s": 2.0, "word": "w"}
    words = dict.fromkeys("abcdegh", "x")
    numbers = Fault(FaultCode.BUSY, "Wait.", **accepted_numbers(said)).numbers
    assert numbers == {**words, "at_s": 3, "retry_after_s": 2.0, "word": "w"}
