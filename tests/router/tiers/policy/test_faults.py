"""The fault table: every row is written here a second time, and every fault code of the engine has a class."""

from __future__ import annotations

import pytest

from mastering.contract import USER_FAULTS, FaultCode
from router.tiers.policy.faults import CONSEQUENCES, FaultClass, NextStep, TierFault, fault_of_engine

STOP, ANOTHER, TIER, WAIT = NextStep.STOP, NextStep.ANOTHER_BACKEND, NextStep.NEXT_TIER, NextStep.WAIT_OR_NEXT_TIER

ROWS = {
    FaultClass.USER: (STOP, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.TOO_BIG: (TIER, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.UNSUPPORTED: (TIER, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.CAPACITY: (WAIT, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.QUOTA: (TIER, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.UNREACHABLE: (ANOTHER, "counts", "no attempt spent", "nobody died"),
    FaultClass.CRASH: (ANOTHER, "counts", "an attempt spent", "a death"),
    FaultClass.BUG: (ANOTHER, "counts", "an attempt spent", "a death"),
    FaultClass.CONFIGURATION: (TIER, "counts", "no attempt spent", "nobody died"),
    FaultClass.ASLEEP: (TIER, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.BAD_OUTPUT: (ANOTHER, "counts", "an attempt spent", "a death"),
    FaultClass.DEADLINE: (STOP, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.ROOM: (WAIT, "no health penalty", "no attempt spent", "nobody died"),
    FaultClass.OURS: (ANOTHER, "no health penalty", "an attempt spent", "nobody died"),
}


@pytest.mark.parametrize("fault_class", list(FaultClass))
def test_a_row_says_what_follows(fault_class: FaultClass) -> None:
    row = CONSEQUENCES[fault_class]
    words = (
        row.next,
        "counts" if row.counts else "no health penalty",
        "an attempt spent" if row.spends else "no attempt spent",
        "a death" if row.death else "nobody died",
    )
    assert words == ROWS[fault_class]
    assert row.example


def test_what_kills_a_backend_always_counts_and_always_costs_the_job() -> None:
    assert [c for c, row in CONSEQUENCES.items() if row.death and not (row.counts and row.spends)] == []


@pytest.mark.parametrize("code", list(FaultCode))
def test_every_word_of_the_engine_has_its_class_and_user_faults_stop_the_job(code: FaultCode) -> None:
    fault = fault_of_engine(code, "a sentence", {"at_s": 1})
    assert (fault.fault_class is FaultClass.USER) == (code in USER_FAULTS)
    assert (fault.consequence.next is STOP) == (code in USER_FAULTS or code is FaultCode.DEADLINE)
    assert (fault.code, fault.detail, fault.numbers) == (code, "a sentence", {"at_s": 1})


def test_a_fault_without_numbers_has_none() -> None:
    fault = TierFault(FaultClass.CRASH, "it broke")
    assert (fault.numbers, fault.code, fault.retry_after_s) == ({}, None, None)
    assert str(fault) == "crash: it broke"
