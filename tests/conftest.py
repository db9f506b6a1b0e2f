"""How the tests are shared out among processes, and the routers that several files look at."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from mastering.runtime import child_process
from tests import warm_children, warm_start
from tests.api import Api
from tests.kills import records
from tests.stack import Stack, stack

_HERE = Path(__file__).parent
_LONGEST_FIRST = (
    "scenarios/test_chaos.py",
    "scenarios/test_kills.py",
    "scenarios/test_spaces.py",
    "browser/test_page.py",
    "spaces/test_the_life_of_a_job.py",
    "privacy/test_sweep.py",
    "spaces/test_access.py",
    "spaces/test_page.py",
    "browser/test_sign_in.py",
    "scenarios",
    "privacy",
    "spaces",
    "browser",
)
"""Files and folders whose tests take longest, in that order: a process that got one at the end would work on alone."""


_APART = "scenarios/test_kills.py"
"""Tests of this file may run side by side: each starts all that it uses."""
_TOGETHER = ("spaces/test_cpu_space.py", "spaces/test_page.py", "spaces/test_cards.py")
"""These files use one Space, so one process runs them all."""


class _ByFile(LoadScopeScheduling):
    """One process for the tests of a file, which share what they start, but for `_APART` and `_TOGETHER`.

    (xdist's own groups are silently ignored by pytest 9, which has no `_nodeid` to write them to.)
    """

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.partition("::")[0].removeprefix("tests/")
        if place in _TOGETHER:
            return _TOGETHER[0]
        return nodeid if place == _APART else place


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    return _ByFile(config, log)


def pytest_configure() -> None:
    """Heed the signals that a shell in the background or nohup lets a process ignore: the tests send them."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    twice = [nodeid for nodeid, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"xdist would run only one of the tests called {twice[0]}")
    items.sort(key=lambda item: _rank(item.path.relative_to(_HERE).as_posix()))


def _rank(place: str) -> int:
    return next((n for n, name in enumerate(_LONGEST_FIRST) if place.startswith(name)), len(_LONGEST_FIRST))


@pytest.fixture(scope="session")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def _router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("router"), workers=0) as running:
        yield running


@pytest.fixture(scope="module")
def warm_space_calls() -> Iterator[None]:
    """What this process itself calls Spaces by starts warm."""
    with _warm("router.tiers.space.child"):
        yield


@pytest.fixture(scope="module")
def warm_probes() -> Iterator[None]:
    """So do probes of a router within this process."""
    with _warm("mastering.probe"):
        yield


@contextmanager
def _warm(module: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child_process, "start", warm_children.starter(warm_start.addresses([module])))
        yield


@pytest.fixture(scope="module")
def shared_stack(_stack: Stack) -> Iterator[Stack]:
    """A router with one worker for every file of this process that leaves them running; no job of another file is
    left in it."""
    yield _stack
    _delete_jobs(_stack)


@pytest.fixture(scope="module")
def shared_router(_router: Stack) -> Iterator[Stack]:
    """The same without a worker, for tests of what happens before a render."""
    yield _router
    _delete_jobs(_router)


def _delete_jobs(running: Stack) -> None:
    with Api(running.url) as api:
        for job in records(running):
            api.http.delete(f"/v1/jobs/{job.id}")
