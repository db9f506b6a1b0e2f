"""The ZeroGPU Space as a real process, off ZeroGPU: its decorator then does nothing, and all else is the same."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mastering import fit
from mastering.contract import Effort, Settings
from mastering.dsp.dynamics import Compressor
from mastering.fit import device_warm_up
from mastering_space import gpu_descent
from tests.songs import demo
from tests.space_process import SpaceProcess, call, fetch, put, running_space, until
from tests.spaces.test_cpu_space import by_command, pcm
from tests.spaces.test_the_life_of_a_job import Running, files_left, memories

FIT = Settings(effort=Effort.FIT, style="warm")


@pytest.fixture(scope="module")
def space() -> Iterator[SpaceProcess]:
    with running_space("zero_gpu") as running:
        yield running


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 8)


def test_its_health_says_what_it_is(space: SpaceProcess) -> None:
    assert tuple(space.health()[key] for key in ("hardware", "device", "state")) == ("zero_gpu", "zero_gpu", "ready")


def test_a_quick_master_has_the_samples_that_the_command_makes(space: SpaceProcess, song: Path, tmp_path: Path) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    assert call(space, job)["type"] == "end"
    assert np.array_equal(by_command(song, tmp_path, Settings()), pcm(fetch(space, job)))
    with space.client() as client:
        client.delete(f"/v1/jobs/{job}")


def test_a_fitted_master_is_refined_beside_the_rendering_process(space: SpaceProcess, song: Path) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    stages: list[str] = []
    last = call(space, job, FIT, on_event=lambda event: stages.append(event.get("stage", "")))
    assert last["type"] == "end", last
    assert "fit" in stages
    assert any("gradient descent" in flag for flag in last["report"]["flags"])
    with space.client() as client:
        client.delete(f"/v1/jobs/{job}")
    assert memories(space.pid) == 0
    assert files_left(space) == []


def test_a_fit_that_is_deleted_stops_its_descent(space: SpaceProcess, song: Path) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    fitting: list[str] = []
    running = Running(space, job, FIT, on_event=lambda event: fitting.append(event.get("stage", "")))
    until(lambda: "fit" in fitting, 60)
    with space.client() as client:
        client.delete(f"/v1/jobs/{job}")
    assert running.join()["code"] == "cancelled"
    until(lambda: memories(space.pid) == 0, 1)
    until(lambda: not _is_descending(space.pid), 2)


def _is_descending(pid: int) -> bool:
    """Whether the process burns more than a quarter of a processor."""
    import time

    def ticks() -> int:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(after_name[11]) + int(after_name[12])

    before = ticks()
    time.sleep(0.4)
    return ticks() - before > 10


def _planned_song(seconds: float = 20.0) -> fit.PlannedSong:
    from mastering.dsp.contour import Contour, hop_frames
    from mastering.dsp.features import Layout

    rate_hz = 44_100
    bands = Layout(rate_hz).centres_hz.size
    random = np.random.default_rng(3)
    blocks = int(seconds * rate_hz / hop_frames(rate_hz))
    power = random.random((blocks, 2, bands)).astype(np.float32) * 1e-3
    peaks = random.random(blocks).astype(np.float32)
    nothing = np.zeros(7)
    contour = Contour(rate_hz=rate_hz, power=power, peaks=peaks)
    return fit.PlannedSong(contour, nothing, -20.0, nothing, nothing, Compressor(-20.0, -21.0, -22.0), 1.0, -14.0, -1.0)


def _request(seconds: float, iterations: int) -> bytes:
    class FakeModel:
        song = _planned_song(seconds)

    three = np.arange(3.0)
    knobs = fit.Knobs(three, three, three, three, three, three, np.array([0.5]))
    limits = fit.DescentLimits(iterations, 60.0)
    return gpu_descent.pack_request(FakeModel, knobs, (knobs, knobs), np.ones(4), np.ones(4), seed=7, limits=limits)  # type: ignore[arg-type]


def test_the_seconds_of_a_gpu_grow_with_the_song_and_the_effort_and_have_an_end() -> None:
    short, long, longest = (gpu_descent.duration_s(_request(seconds, 100)) for seconds in (30, 300, 3600))
    assert short < long < longest <= gpu_descent.MOST_S
    assert gpu_descent.duration_s(_request(300, 20)) < long


def test_a_descent_by_bytes_keeps_to_the_caps_too() -> None:
    model = fit.ChainModel(device_warm_up.noise(seconds=6.0), torch.device("cpu"))
    start, bounds = device_warm_up.all_knobs(0.0), (device_warm_up.all_knobs(-1.0), device_warm_up.all_knobs(1.0))
    now = model.read(start)
    rows = np.zeros((1, now.size))
    rows[0, :10] = 0.1
    given = {"seed": 7, "limits": fit.DescentLimits(6), "caps": fit.Caps(now, rows, np.zeros(1))}
    free = fit.descend(
        model, start, bounds, now + 2, np.ones(now.size), tick=lambda part: None, **{**given, "caps": None}
    )
    here = fit.descend(model, start, bounds, now + 2, np.ones(now.size), tick=lambda part: None, **given)
    *_, answer = gpu_descent.run_descent(
        gpu_descent.pack_request(model, start, bounds, now + 2, np.ones(now.size), **given)
    )
    assert isinstance(answer, bytes)
    there = gpu_descent.unpack_result(answer)
    assert np.array_equal(there.knobs.mid_db, here.knobs.mid_db)
    assert np.abs(here.knobs.mid_db[:10]).mean() < np.abs(free.knobs.mid_db[:10]).mean()


def test_a_request_comes_back_as_it_was_and_holds_no_pickle() -> None:
    request = _request(20, 100)
    assert b"pickle" not in request
    flat = gpu_descent._unpack(request)
    song = gpu_descent._record(fit.PlannedSong, flat, "song")
    expected = _planned_song()
    assert expected.compressor == song.compressor
    assert np.array_equal(expected.contour.power, song.contour.power)
    assert (flat["seed"], flat["limits.iterations"]) == (7, 100)
