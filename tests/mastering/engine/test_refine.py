"""Plans refined by descent: nearer by the real chain, repeatable, stoppable, and honest where they are not refined."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal

from mastering import fit
from mastering.contract import Effort, Measurements, Plan, Report, Settings, Stage
from mastering.dsp.dynamics import BandCompressor, Compressor
from mastering.dsp.features import Layout, distance_db, weights
from mastering.dsp.stream import Audio, stored
from mastering.dsp.tone import crossovers, filtered_sides, left_right
from mastering.engine import analyse, inputs, pipeline, plan, refine, replay, trial
from mastering.engine.album import master_album
from tests.mastering.sound import music, wav

RATE_HZ = 44_100
SETTINGS = Settings(amount_percent=100, effort=Effort.FIT)


def _compressed_and_tilted(song: np.ndarray) -> np.ndarray:
    """The song brightened by a shelf and compressed in three bands: what a fit should find its way to.

    Gently, because a fit gives up no measure for another: of more compression it would not meet the crest.
    """
    bright = signal.sosfilt(signal.butter(1, 3000, "high", fs=RATE_HZ, output="sos"), song) * 0.8 + song
    compressor = BandCompressor(Compressor(-38.0, -38.0, -48.0, 2.0, 2.0, 2.0), RATE_HZ)
    responses = crossovers(160.0, 2800.0, RATE_HZ)[:, None, :] * np.ones((1, 2, 1), np.float32)
    blocks = stored(bright.astype(np.float32), RATE_HZ).read()
    return np.concatenate([left_right(compressor.feed(bands)) for bands in filtered_sides(blocks, responses)], axis=1)


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """A song with loud and quiet parts, and what it shall sound like."""
    song = music(seconds=14)
    song *= np.repeat(np.array([1.0, 0.35, 0.8, 0.25, 1.0, 0.5, 0.9], np.float32), 2 * RATE_HZ)
    return wav(song), wav(_compressed_and_tilted(song) * np.float32(0.7))


def _mastered(song: bytes, settings: Settings, reference: bytes | None = None) -> tuple[Report, bytes]:
    out = io.BytesIO()
    references = [io.BytesIO(reference)] if reference else []
    report = pipeline.master(io.BytesIO(song), settings, references=references, open_output=lambda kind: out)
    return report, out.getvalue()


def _analysed(audio: bytes) -> tuple[Audio, analyse.Analysis]:
    samples, _ = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    song = stored(np.ascontiguousarray(samples.T), RATE_HZ)
    return song, analyse.analyse(song.read(), RATE_HZ, song.channels)


def _distance_db(master: bytes, reference: bytes) -> float:
    """By the meters, between the files themselves: nothing of the fit's own trial in it."""
    one, other = (trial.read_recording(_analysed(audio)[0]) for audio in (master, reference))
    goal = other.features(other.lufs)
    return distance_db(one.features(one.lufs), goal, weights(Layout(RATE_HZ), goal, goal))


def _with_character(reference: bytes) -> Measurements:
    return inputs.measure(io.BytesIO(reference), with_character=True)


def _closed_form(song: bytes, settings: Settings, reference: bytes) -> tuple[Plan, Audio, analyse.Analysis]:
    audio, analysis = _analysed(song)
    chosen, _ = plan.tone_plan(analysis.measurements, analysis.power, settings, [_with_character(reference)])
    return chosen, audio, analysis


@pytest.fixture(scope="module")
def fitted(pair: tuple[bytes, bytes]) -> tuple[Report, bytes]:
    return _mastered(*(pair[0], SETTINGS, pair[1]))


def test_a_fit_finds_the_reference_s_dynamics_which_the_closed_form_leaves_alone(
    pair: tuple[bytes, bytes], fitted: tuple[Report, bytes]
) -> None:
    song, reference = pair
    report, master = fitted
    _, quick = _mastered(song, SETTINGS.model_copy(update={"effort": Effort.QUICK}), reference)
    assert _distance_db(master, reference) < 0.7 * _distance_db(quick, reference)
    step = report.plan.step("compressor")
    assert step is not None
    assert "refined by gradient descent" in step.reason.lower()
    assert any(flag.startswith("The plan was refined") for flag in report.flags)


def test_a_fitted_plan_is_a_plan_like_any_other_and_renders_again_to_the_same_samples(
    pair: tuple[bytes, bytes], fitted: tuple[Report, bytes]
) -> None:
    report, master = fitted
    chosen = Plan.model_validate_json(report.plan.model_dump_json())
    assert plan.plan_hash(chosen) == plan.plan_hash(report.plan)
    again = io.BytesIO()
    replay.render_plan(io.BytesIO(pair[0]), chosen, open_output=lambda kind: again)
    assert replay.difference_steps(io.BytesIO(master), again) == 0


def test_the_same_song_gets_the_same_plan_twice(pair: tuple[bytes, bytes], fitted: tuple[Report, bytes]) -> None:
    again, _ = _mastered(*(pair[0], SETTINGS, pair[1]))
    assert plan.plan_hash(again.plan) == plan.plan_hash(fitted[0].plan)


def test_a_reference_known_by_its_numbers_alone_serves_as_well_as_its_audio(
    pair: tuple[bytes, bytes], fitted: tuple[Report, bytes]
) -> None:
    song, reference = pair
    numbers = _with_character(reference).model_dump_json().encode()
    _, by_audio = fitted
    _, by_numbers = _mastered(song, SETTINGS, numbers)
    assert _distance_db(by_numbers, reference) == pytest.approx(_distance_db(by_audio, reference), abs=0.05)


def test_a_style_s_curve_is_what_comes_out_of_the_whole_chain(pair: tuple[bytes, bytes]) -> None:
    report, _ = _mastered(pair[0], Settings(style="loud", target="cd", amount_percent=100, effort=Effort.FIT))
    (remark,) = (flag for flag in report.flags if "refined" in flag.lower())
    assert "distance" in remark
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert report.plan.loudness_lufs == -9.0 or any(flag.startswith("Stopped short") for flag in report.flags)


def test_an_amount_of_nothing_is_not_refined(pair: tuple[bytes, bytes]) -> None:
    expected, _ = _mastered(pair[0], Settings(amount_percent=0))
    report, _ = _mastered(pair[0], Settings(amount_percent=0, effort=Effort.FIT))
    assert report.plan.steps == expected.plan.steps
    assert any(flag.startswith("Not refined: an amount of 0 %") for flag in report.flags)


def test_where_nothing_is_left_to_find_the_closed_form_stays_and_says_so(pair: tuple[bytes, bytes]) -> None:
    # Its own reference, and quiet enough that no limiter works: the song is there already.
    settings = SETTINGS.model_copy(update={"loudness_lufs": -30.0})
    expected, _ = _mastered(pair[0], settings.model_copy(update={"effort": Effort.QUICK}), pair[0])
    report, _ = _mastered(pair[0], settings, pair[0])
    assert report.plan.steps == expected.plan.steps
    assert any(flag.startswith("Not refined: the closed form comes within") for flag in report.flags)


def test_a_worse_find_is_thrown_away(pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, audio, analysis = _closed_form(pair[0], SETTINGS, pair[1])
    real = refine.with_knobs

    def spoilt(*given: object) -> object:
        found, knobs = real(*given)  # type: ignore[arg-type]
        steps = tuple(
            step.model_copy(update={"parameters": step.parameters.model_copy(update={"mid_db": (9.0, -9.0) * 15})})
            if step.name == "tone"
            else step
            for step in found.steps
        )
        return found.model_copy(update={"steps": steps}), knobs

    monkeypatch.setattr(refine, "with_knobs", spoilt)
    kept, remark = refine.refined(chosen, audio, analysis, [_with_character(pair[1])])
    assert kept == chosen
    assert "found nothing nearer than the closed form" in remark


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (2, "half of the change was kept, because all of it would leave its side spectrum 0.50 dB (7 %) further away"),
        (3, "a quarter of the change was kept, because all of it"),
        (4, "nearer to what was asked for, but left its side spectrum 0.50 dB (7 %) further away"),
    ],
    ids=["half", "a quarter", "none"],
)
def test_of_a_find_that_leaves_something_further_away_less_is_kept_and_the_remark_says_so(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch, kept: int, expected: str
) -> None:
    chosen, audio, analysis = _closed_form(pair[0], SETTINGS, pair[1])
    answers = iter(["its side spectrum 0.50 dB (7 %) further away"] * kept + [""])
    monkeypatch.setattr(trial.Measures, "grown", lambda self, features: next(answers))
    monkeypatch.setattr(refine, "_ROUNDS", (15, 5))
    found, remark = refine.refined(chosen, audio, analysis, [_with_character(pair[1])])
    assert expected in remark
    assert (found == chosen) == (kept == 4)
    if kept < 4:
        tone = found.step("tone")
        assert tone is not None
        assert expected in tone.reason


def _measures_db(master: bytes, reference: bytes) -> dict[str, float]:
    """How far a master is from the reference by each measure, read from the whole files."""
    one, other = (trial.read_recording(_analysed(audio)[0]) for audio in (master, reference))
    found, goal = one.features(one.lufs), other.features(other.lufs)
    away = {name: float(np.abs(found - goal)[part].mean()) for name, part in Layout(RATE_HZ).parts.items()}
    return {name: max(away[name], 0.1) for name in ("mid", "side", "levels", "crest", "width")}


def test_a_fit_to_a_far_reference_leaves_nothing_further_away_than_the_closed_form_does() -> None:
    song = music(seconds=8)
    time = np.arange(4 * RATE_HZ) / RATE_HZ
    horn = sum(np.cos(2 * np.pi * 880 * k * time) / k**0.6 for k in range(1, 12)) * np.abs(np.sin(np.pi * time))
    reference = wav(np.stack([horn, 0.9 * horn]).astype(np.float32) / np.float32(20))
    _, quick = _mastered(wav(song), SETTINGS.model_copy(update={"effort": Effort.QUICK}), reference)
    report, master = _mastered(wav(song), SETTINGS, reference)
    before, after = (_measures_db(each, reference) for each in (quick, master))
    assert {name: round(after[name] / before[name], 3) for name in after if after[name] > 1.05 * before[name]} == {}
    assert any("efined" in flag for flag in report.flags)


def test_a_device_that_gives_up_costs_the_refinement_and_not_the_master(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*given: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fit.ChainModel, "features", out_of_memory)
    chosen, audio, analysis = _closed_form(pair[0], SETTINGS, pair[1])
    assert refine.refined(chosen, audio, analysis, [_with_character(pair[1])]) == (chosen, refine.FAILED)


def test_a_descent_out_of_time_stops_and_its_best_so_far_is_still_tried(pair: tuple[bytes, bytes]) -> None:
    chosen, audio, analysis = _closed_form(pair[0], SETTINGS, pair[1])
    ticks: list[float] = []
    found, remark = refine.refined(chosen, audio, analysis, [_with_character(pair[1])], tick=ticks.append, seconds=0.0)
    assert "0 iterations" in remark
    assert not [fraction for fraction in ticks if refine._ENDS[1] < fraction <= refine._ENDS[2]]
    assert not [fraction for fraction in ticks if refine._ENDS[3] < fraction <= refine._ENDS[4]]
    assert {step.name for step in found.steps} >= {"tone"}


def test_what_progress_raises_in_the_fit_ends_it_at_once(pair: tuple[bytes, bytes]) -> None:
    class Stop(Exception):
        pass

    calls = 0

    def progress(stage: Stage, fraction: float) -> None:
        nonlocal calls
        if stage is Stage.FIT and fraction > 0.3:
            calls += 1
            raise Stop

    with pytest.raises(Stop):
        pipeline.master(
            io.BytesIO(pair[0]),
            SETTINGS,
            references=[io.BytesIO(pair[1])],
            open_output=lambda kind: io.BytesIO(),
            progress=progress,
        )
    assert calls == 1


def test_mono_is_refined_too(pair: tuple[bytes, bytes]) -> None:
    song, reference = (wav(_analysed(audio)[0].samples[:1]) for audio in pair)  # type: ignore[index]
    report, _ = _mastered(song, SETTINGS, reference)
    assert any(flag.startswith("The plan was refined") for flag in report.flags)


def test_an_album_keeps_its_one_tone_and_says_so(pair: tuple[bytes, bytes]) -> None:
    outputs = [io.BytesIO(), io.BytesIO()]
    reports = master_album(
        [io.BytesIO(part) for part in pair], SETTINGS, open_output=lambda number, kind: outputs[number]
    )
    assert all(any("Not refined: the tracks of an album" in flag for flag in report.flags) for report in reports)


_NO_TORCH = """
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Nowhere())
"""
_BLOCKED = """
import io, sys
{block}
from mastering.engine.demo import write_demo_song
from mastering.engine.pipeline import master
from mastering.contract import Settings
source, out = io.BytesIO(), io.BytesIO()
write_demo_song(source)
report = master(source, Settings(style="punchy", effort=sys.argv[1]), open_output=lambda kind: out)
print([flag for flag in report.flags if "refined" in flag.lower()], sys.modules.get("torch") is not None)
"""


def test_without_torch_the_closed_form_masters_and_the_report_says_so() -> None:
    code = _BLOCKED.format(block=_NO_TORCH)
    done = subprocess.run([sys.executable, "-c", code, "fit"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{[refine.NO_TORCH]!r} False"


def test_torch_is_not_loaded_until_a_fit_is_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKED.format(block=""), "quick"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] False"
