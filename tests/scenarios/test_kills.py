"""The router killed again and again at random moments: nothing lost, nothing left, nothing readable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import stack as stacks
from tests.kills import Findings, torment
from tests.songs import demo
from tests.stack import stack

# As many jobs as the kills leave unfinished may wait together, and two run at once.
SETTINGS = {"max_queued_per_account": 500, "max_running_per_account": 4}


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A short song and a stretch of its bytes that must be nowhere on a disk."""
    whole = demo(tmp_path_factory.mktemp("song") / "song.wav", 3).read_bytes()
    return whole, whole[100_000:100_064]


def run(folder: Path, song: tuple[bytes, bytes], kills: int, seed: int, longest_pause_s: float = 0.9) -> Findings:
    with stack(folder, settings=SETTINGS) as running:
        return torment(running, *song, kills=kills, seed=seed, longest_pause_s=longest_pause_s)


@pytest.mark.parametrize(("kills", "seed"), [(13, 1), (12, 2)])
def test_25_kills_lose_nothing_and_leave_nothing(
    tmp_path: Path, song: tuple[bytes, bytes], kills: int, seed: int
) -> None:
    """In two halves, each in folders of its own, so that they may run side by side."""
    findings = run(tmp_path, song, kills, seed)
    assert findings.violations == []
    assert findings.mastered == findings.accepted > 0


def test_a_router_that_does_not_clean_up_is_caught(
    tmp_path: Path, song: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_cleanup(monkeypatch):
        findings = run(tmp_path, song, 3, seed=3)
    assert any("no job names" in violation for violation in findings.violations)


@contextmanager
def without_cleanup(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Routers started meanwhile never destroy what a job leaves, nor look for orphans."""
    start: Callable[..., stacks.Running] = stacks._start

    def mutated(command: list[str], *more: object) -> stacks.Running:
        if command[1:3] == ["-m", "router"]:
            command = [sys.executable, "-m", "tests.careless_router", *command[3:]]
        return start(command, *more)

    monkeypatch.setattr(stacks, "_start", mutated)
    yield
