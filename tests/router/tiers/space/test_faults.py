"""Faults of Spaces: every stage, every ZeroGPU title, every HTTP status, every exception of the client."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from huggingface_hub import SpaceStage

from mastering.contract import USER_FAULTS, FaultCode
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, NextStep
from router.tiers.space.faults import (
    FAULTS_BY_TITLE,
    STAGES,
    fault_of_app_error,
    fault_of_client,
    fault_of_space,
    fault_of_status,
    stage_of,
)

ASLEEP, BROKEN = FaultClass.ASLEEP, FaultClass.CONFIGURATION


@pytest.mark.parametrize(
    ("stage", "up", "reported_state", "fault"),
    [
        ("RUNNING", True, None, None),
        ("RUNNING_BUILDING", True, None, None),
        ("RUNNING_APP_STARTING", True, None, None),
        ("SLEEPING", False, BackendState.SLEEPING, ASLEEP),
        ("STOPPED", False, BackendState.SLEEPING, ASLEEP),
        ("BUILDING", False, BackendState.WARMING, ASLEEP),
        ("APP_STARTING", False, BackendState.WARMING, ASLEEP),
        ("PAUSED", False, BackendState.PAUSED, BROKEN),
        ("NO_APP_FILE", False, None, BROKEN),
        ("CONFIG_ERROR", False, None, BROKEN),
        ("BUILD_ERROR", False, None, BROKEN),
        ("RUNTIME_ERROR", False, None, BROKEN),
        ("DELETING", False, None, BROKEN),
        ("A_STAGE_OF_TOMORROW", False, None, BROKEN),
    ],
)
def test_a_stage_says_whether_the_space_can_work_or_will(
    stage: str, up: bool, reported_state: BackendState | None, fault: FaultClass | None
) -> None:
    known = stage_of(stage)
    assert (known.health.up, known.health.reported_state, known.fault) == (up, reported_state, fault)


def test_every_stage_that_the_hubs_client_knows_is_known_here() -> None:
    assert {stage.value for stage in SpaceStage} - set(STAGES) == set()


QUOTA = "You have exceeded your free ZeroGPU quota (60s requested vs. 12s left). Try again in {}. Subscribe"


@pytest.mark.parametrize(
    ("title", "message", "fault_class", "retry_after_s", "next_step"),
    [
        ("ZeroGPU quota exceeded", QUOTA.format("3:07:12"), FaultClass.QUOTA, 11_232.0, NextStep.NEXT_TIER),
        ("ZeroGPU quota exceeded", QUOTA.format("1 day, 0:00:01"), FaultClass.QUOTA, 86_401.0, NextStep.NEXT_TIER),
        ("ZeroGPU quota exceeded", QUOTA.format("0:00:00"), FaultClass.QUOTA, 1.0, NextStep.NEXT_TIER),
        ("ZeroGPU quota exceeded", "You have exceeded your runs limit. ", FaultClass.QUOTA, None, NextStep.NEXT_TIER),
        ("ZeroGPU pending credits exceeded", "You have too many", FaultClass.QUOTA, 60.0, NextStep.NEXT_TIER),
        ("ZeroGPU illegal duration", "The requested GPU duration", FaultClass.TOO_BIG, None, NextStep.NEXT_TIER),
        ("ZeroGPU queue timeout", "No GPU was available", FaultClass.CAPACITY, 60.0, NextStep.WAIT_OR_NEXT_TIER),
        ("ZeroGPU client error", "No GPU is available", FaultClass.CAPACITY, 60.0, NextStep.WAIT_OR_NEXT_TIER),
        ("ZeroGPU client error", "Expired ZeroGPU proxy token", FaultClass.CAPACITY, 60.0, NextStep.WAIT_OR_NEXT_TIER),
        ("ZeroGPU client error", "Internal Gradio error", FaultClass.BUG, None, NextStep.ANOTHER_BACKEND),
        ("ZeroGPU worker error", "GPU task aborted", FaultClass.CRASH, None, NextStep.ANOTHER_BACKEND),
        ("ZeroGPU worker error", "OutOfMemoryError", FaultClass.BUG, None, NextStep.ANOTHER_BACKEND),
        ("Error", "a bug at /home/somebody", FaultClass.BUG, None, NextStep.ANOTHER_BACKEND),
    ],
)
def test_an_error_is_told_by_its_title(
    title: str, message: str, fault_class: FaultClass, retry_after_s: float | None, next_step: NextStep
) -> None:
    fault = fault_of_app_error(title, message)
    assert (fault.fault_class, fault.retry_after_s) == (fault_class, retry_after_s)
    assert fault.consequence.next is next_step
    assert message not in fault.detail


def test_every_title_that_the_installed_decorator_raises_is_known() -> None:
    files = [file for file in metadata.files("spaces") or () if file.name in ("client.py", "wrappers.py")]
    raised = {title for file in files for title in re.findall(r'error\("(ZeroGPU [^"]+)"', file.read_text("utf-8"))}
    assert len(raised) >= 6
    assert raised - set(FAULTS_BY_TITLE) == set()


@pytest.mark.parametrize("code", list(FaultCode))
def test_what_is_too_big_for_a_space_is_not_the_users_fault(code: FaultCode) -> None:
    sizes = {FaultCode.TOO_LARGE, FaultCode.TOO_LONG, FaultCode.RESOURCE_LIMIT}
    fault_class = fault_of_space(code).fault_class
    assert (fault_class is FaultClass.TOO_BIG) == (code in sizes)
    assert (fault_class is FaultClass.USER) == (code in USER_FAULTS - sizes)


@pytest.mark.parametrize(
    ("status", "reached", "expected"),
    [
        (409, True, FaultClass.CAPACITY),
        (429, True, FaultClass.CAPACITY),
        (503, True, FaultClass.CAPACITY),
        (401, True, FaultClass.CONFIGURATION),
        (403, True, FaultClass.CONFIGURATION),
        (404, False, FaultClass.CONFIGURATION),
        (413, True, FaultClass.TOO_BIG),
        (422, True, FaultClass.BUG),
        (500, True, FaultClass.BUG),
        (502, True, FaultClass.CRASH),
        (504, False, FaultClass.UNREACHABLE),
    ],
)
def test_a_status_has_its_class(status: int, reached: bool, expected: FaultClass) -> None:
    assert fault_of_status(status, reached=reached).fault_class is expected


@pytest.mark.parametrize(("header", "expected"), [("17", 17.0), ("", 10.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 10.0)])
def test_retry_after_in_seconds_is_honoured(header: str, expected: float | None) -> None:
    assert fault_of_status(503, reached=True, retry_after=header).retry_after_s == expected


def test_what_a_space_says_of_a_song_is_believed_and_told_in_our_words() -> None:
    problem = {"code": "undecodable", "title": "Undecodable", "detail": "It ends in the middle."}
    fault = fault_of_status(422, reached=True, problem=problem)
    assert (fault.fault_class, fault.detail) == (FaultClass.USER, "The audio can't be decoded: export the file again.")
    for other in (None, [], {"code": "unheard of"}, {"title": "no code"}):
        assert fault_of_status(422, reached=True, problem=other).fault_class is FaultClass.BUG


@pytest.mark.parametrize(
    ("kinds", "said", "expected"),
    [
        (["CancelledError", "Error", "Exception"], {}, FaultClass.CRASH),
        (["ReadError", "TransportError"], {}, FaultClass.CRASH),
        (["ValueError"], {"message": "Server stopped."}, FaultClass.CRASH),
        (["QueueError"], {}, FaultClass.CAPACITY),
        (["TooManyRequestsError"], {}, FaultClass.CAPACITY),
        (["HTTPStatusError"], {"status": 429}, FaultClass.CAPACITY),
        (["ValueError"], {"message": "Could not fetch", "status": 503}, FaultClass.CAPACITY),
        (["AuthenticationError"], {}, FaultClass.CONFIGURATION),
        (["JSONDecodeError", "ValueError"], {}, FaultClass.BUG),
        (["AppError"], {"title": "ZeroGPU illegal duration"}, FaultClass.TOO_BIG),
        (["ValueError"], {"message": "Cannot find a function"}, FaultClass.BUG),
    ],
)
def test_what_the_client_raises_has_its_class(kinds: list[str], said: dict[str, object], expected: FaultClass) -> None:
    assert fault_of_client(kinds, **said).fault_class is expected  # type: ignore[arg-type]


def test_of_a_spaces_numbers_only_numbers_stay_and_none_of_them_replaces_a_word_of_ours() -> None:
    said = {"rate_hz": 5, "code": 1, "detail": 2, "status": 200, "where": "/home/somebody", "A b": 3}
    assert fault_of_space(FaultCode.UNSUPPORTED_RATE, said).numbers == {"rate_hz": 5}
    assert len(fault_of_space(FaultCode.SILENT, {"a" * n: n for n in range(1, 33)}).numbers) == 16
