"""The descent itself: what a GPU would replay, what happens where it can't, and that all of them find the same."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mastering import fit
from mastering.fit import descent, device, device_warm_up

CPU = torch.device("cpu")


def _counted() -> tuple[list[str], Callable[[], None]]:
    calls: list[str] = []
    return calls, lambda: calls.append("plain")


def test_work_is_recorded_at_its_third_call_and_replayed_from_then_on() -> None:
    calls, work = _counted()

    def record(recorded: Callable[[], None]) -> Callable[[], None]:
        assert recorded is work
        calls.append("recorded")
        return lambda: calls.append("replayed")

    again = device.Repeated(work, record)
    for _ in range(4):
        again()
    assert calls == ["plain", "plain", "recorded", "replayed", "replayed"]


def test_work_that_cannot_be_recorded_is_done_plainly_and_tried_once() -> None:
    calls, work = _counted()

    def record(recorded: Callable[[], None]) -> Callable[[], None]:
        calls.append("tried")
        raise RuntimeError("operation not permitted when stream is capturing")

    again = device.Repeated(work, record)
    for _ in range(4):
        again()
    assert calls == ["plain", "plain", "tried", "plain", "plain"]


def test_on_a_cpu_nothing_is_recorded() -> None:
    _, work = _counted()
    assert device.repeated(work, CPU) is work


def test_a_descent_runs_on_one_thread_of_a_cpu_and_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with device.at_work(CPU):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def _goal(model: fit.ChainModel) -> np.ndarray:
    """Brighter and less dynamic than what is there."""
    now = model.read(device_warm_up.all_knobs(0.0))
    return now + np.linspace(-2.0, 2.0, now.size)


def _descended(on: torch.device, iterations: int = 12) -> tuple[fit.Knobs, list[float]]:
    """What is found on twelve seconds of noise, and the fractions told."""
    model = fit.ChainModel(device_warm_up.noise(seconds=12.0), on)
    start, bounds, goal = (
        device_warm_up.all_knobs(0.0),
        (device_warm_up.all_knobs(-1.0), device_warm_up.all_knobs(1.0)),
        _goal(model),
    )
    ticks: list[float] = []
    limits = fit.DescentLimits(iterations)
    found = fit.descend(model, start, bounds, goal, goal * 0 + 1, seed=5, limits=limits, tick=ticks.append)
    assert found.iterations == iterations
    return found.knobs, ticks


def _row(knobs: fit.Knobs) -> np.ndarray:
    return np.concatenate(list(knobs.by_name().values()))


def test_a_descent_moves_within_its_bounds_and_tells_of_each_iteration() -> None:
    knobs, ticks = _descended(CPU)
    assert ticks == [done / 12 for done in range(1, 13)]
    assert np.abs(_row(knobs)).max() <= 1.0
    assert knobs.mid_db[-4:].mean() > knobs.mid_db[4:8].mean()


def test_a_descent_that_cannot_be_recorded_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = _descended(CPU)

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError

    monkeypatch.setattr(descent, "repeated", lambda work, on: device.Repeated(work, refuse))
    found, _ = _descended(CPU)
    assert np.array_equal(_row(found), _row(expected))


def test_what_an_iteration_changes_keeps_its_place() -> None:
    # A recording knows tensors by their addresses.
    model, start, bounds = (
        fit.ChainModel(device_warm_up.noise(seconds=12.0), CPU),
        device_warm_up.all_knobs(0.0),
        (device_warm_up.all_knobs(-1.0), device_warm_up.all_knobs(1.0)),
    )
    goal = model.read(start)
    optimiser = descent._Optimiser(model, goal, goal * 0 + 1, bounds, descent._starts(start, bounds, 1), 3)
    tensors = {name: value for name, value in vars(optimiser).items() if isinstance(value, torch.Tensor)}
    places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    for work in (optimiser.try_draw, optimiser.start_from_best, optimiser.step, optimiser.step):
        work()
    assert {name: getattr(optimiser, name).data_ptr() for name in places} == places


def test_warming_up_makes_a_short_descent() -> None:
    assert 0 < device_warm_up.short_descent(CPU).iterations < 10


def test_warming_up_names_the_device() -> None:
    assert fit.warm_up() == (torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_a_gpu_replays_to_the_knobs_that_it_finds_plainly_and_to_those_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu, recordings = torch.device("cuda"), []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        recordings.append(device.recorded(work))
        return recordings[-1]

    monkeypatch.setattr(descent, "repeated", lambda work, on: device.Repeated(work, record))
    replayed, _ = _descended(gpu)
    assert len(recordings) == 2
    monkeypatch.setattr(descent, "repeated", lambda work, on: work)
    plain, _ = _descended(gpu)
    assert _row(replayed) == pytest.approx(_row(plain), abs=1e-4)
    # Another order of adding, so other knobs; but as near to the goal.
    reference, (on_cpu, _) = fit.ChainModel(device_warm_up.noise(seconds=12.0), CPU), _descended(CPU)
    goal = _goal(reference)
    distances = [np.abs(reference.read(found) - goal).mean() for found in (replayed, on_cpu)]
    assert distances[0] == pytest.approx(distances[1], rel=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_a_gpu_goes_on_plainly_after_a_recording_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = _descended(torch.device("cuda"))
    loss = descent._Optimiser._loss
    read: list[float] = []

    def read_back(optimiser: descent._Optimiser, row: torch.Tensor) -> torch.Tensor:
        found = loss(optimiser, row)
        read.append(float(found.detach()))  # what no recording allows
        return found

    monkeypatch.setattr(descent._Optimiser, "_loss", read_back)
    found, _ = _descended(torch.device("cuda"))
    assert len(read) > 12
    assert _row(found) == pytest.approx(_row(expected), abs=1e-4)
