"""Retries: a passing failure is tried again, so often and no oftener; any other is raised at once."""

from __future__ import annotations

import logging

import pytest

from router.core import retry


class Passing(Exception):
    """A failure that another try may cure."""


def is_passing(error: Exception) -> bool:
    return isinstance(error, Passing)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)


def test_a_passing_failure_is_tried_again_until_it_passes() -> None:
    failures = [Passing(), Passing()]

    @retry.retried(is_passing, tries=5)
    def call(secret: str) -> str:
        if failures:
            raise failures.pop()
        return secret

    assert call("a") == "a"
    assert failures == []


def test_any_other_failure_is_raised_at_once() -> None:
    tries = []

    @retry.retried(is_passing, tries=5)
    def call() -> None:
        tries.append(1)
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        call()
    assert len(tries) == 1


def test_the_last_failure_is_raised_after_so_many_tries() -> None:
    tries = []

    @retry.retried(is_passing, tries=3)
    def call() -> None:
        tries.append(1)
        raise Passing

    with pytest.raises(Passing):
        call()
    assert len(tries) == 3


def test_tries_that_bring_progress_are_not_counted() -> None:
    arrived, tries = 0, []

    def progress() -> int:
        return arrived

    def upload() -> None:
        nonlocal arrived
        for attempt in retry.attempts(is_passing, tries=2, progress=progress):
            with attempt:
                tries.append(1)
                arrived = min(arrived + 1, 10)
                raise Passing

    with pytest.raises(Passing):
        upload()
    assert (arrived, len(tries)) == (10, 12)


def test_a_retry_leaves_no_word_in_any_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = [Passing()]

    @retry.retried(is_passing, tries=5)
    def call(secret: str) -> None:
        if failures:
            raise failures.pop()

    with caplog.at_level(logging.DEBUG):
        call("canary")
    said = capsys.readouterr()
    assert "canary" not in caplog.text + said.out + said.err
    assert caplog.records == []
