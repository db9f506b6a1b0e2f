"""Work beside work changes nothing but the time it takes."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mastering.contract import Settings
from mastering.dsp import threads
from mastering.dsp.stream import Samples, split
from mastering.runtime import blas
from tests.mastering.sound import loud_mix, master, wav


class _Kept:
    def __init__(self) -> None:
        self.blocks: list[Samples] = []

    def feed(self, block: Samples) -> None:
        self.blocks.append(block)


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "cores", lambda: request.param)
    return int(request.param)


def test_what_is_made_ahead_comes_whole_and_in_order(cores: int) -> None:
    assert list(threads.ahead(iter(range(100)))) == list(range(100))
    assert list(threads.ahead(iter([]))) == []


def test_a_failure_ahead_reaches_the_caller_after_what_came_before(cores: int) -> None:
    found: list[float] = []
    with pytest.raises(ZeroDivisionError):
        found.extend(threads.ahead(1 / number for number in (2, 1, 0)))
    assert found == [0.5, 1.0]


def test_every_meter_sees_every_block_once(cores: int) -> None:
    samples = np.arange(400_000, dtype=np.float32).reshape(2, -1)
    meters = [_Kept(), _Kept(), _Kept()]
    passed = list(threads.feed_all(split(samples), meters))
    for seen in (passed, *(meter.blocks for meter in meters)):
        assert np.array_equal(np.concatenate(seen, axis=1), samples)


def test_a_meter_that_fails_ends_the_feeding(cores: int) -> None:
    class Bad:
        def feed(self, block: Samples) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(threads.feed_all(split(np.zeros((1, 10), np.float32)), [Bad(), _Kept()]))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_master_is_the_same_on_one_core_and_on_two(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = wav(loud_mix(channels=channels, seconds=5))
    made = []
    for count in (1, 2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, count=count: set(range(count)))
        report, outputs = master(source, Settings(target="cd", style="loud"))
        made.append((report.model_dump_json(), outputs))
    assert made[0] == made[1]


@pytest.mark.parametrize("module", ["mastering.cli", "mastering.worker.fork_server"])
def test_nobody_has_loaded_numpy_before_its_matrix_products_are_held_to_one_thread(module: str) -> None:
    code = f"import sys, {module}; from mastering.runtime import blas; blas.one_thread(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_who_names_a_number_of_threads_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    blas.one_thread()
    assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"]) == ("1", "3")
