"""Plans as records: their JSON is what reports and saved plans have had, and no step is half-made or misplaced."""

import json

import pytest
from pydantic import ValidationError

from mastering.contract import (
    CHAIN,
    ENGINE_VERSION,
    SHAPING,
    BoardParameters,
    BoardStep,
    CompressorStep,
    LimiterParameters,
    LimiterStep,
    LoudnessParameters,
    LoudnessStep,
    Plan,
    SaturationParameters,
    SaturationStep,
    Settings,
    ToneParameters,
    ToneStep,
)
from mastering.contract.board import Gain, HighpassFilter
from mastering.dsp.dynamics import Compressor
from mastering.dsp.limiter import Limiter
from mastering.engine import steps

BOARD = BoardStep(
    parameters=BoardParameters(
        processors=(HighpassFilter(cutoff_frequency_hz=4), Gain(on="side", gain_db=1.5, reason="F."))
    ),
    reason="G.",
)
TONE = ToneStep(parameters=ToneParameters(hz=(100.0, 1000.0), mid_db=(0.0, 1.5), side_db=(0.0, -1.0)), reason="A.")
COMPRESSOR = CompressorStep(
    parameters=steps.compressor_parameters(Compressor(-20.0, -21.0, -22.0, attack_ms=20.0)), reason="B."
)
SATURATION = SaturationStep(parameters=SaturationParameters(drive=0.2, peak=0.5), reason="C.")
LOUDNESS = LoudnessStep(
    parameters=LoudnessParameters(gain_db=3.25, most_reduction_db=10, most_noise_lufs=-55), reason="D."
)
LIMITER = LimiterStep(parameters=steps.limiter_parameters(Limiter(-1.0), peak_floor=0.25), reason="E.")


def _plan() -> Plan:
    empty = Plan(
        engine_version=ENGINE_VERSION,
        settings=Settings(),
        rate_hz=44_100,
        loudness_lufs=-14.0,
        ceiling_dbtp=-1.0,
        steps=(),
        seed=1,
    )
    return empty.with_steps(LIMITER, SATURATION, TONE, LOUDNESS, COMPRESSOR, BOARD)


def test_steps_stand_in_the_order_of_the_chain_however_they_were_given() -> None:
    plan = _plan()
    assert tuple(step.name for step in plan.steps) == CHAIN
    louder = LOUDNESS.model_copy(update={"parameters": LOUDNESS.parameters.model_copy(update={"gain_db": 6.0})})
    again = plan.with_steps(louder, None)
    assert tuple(step.name for step in again.steps) == CHAIN
    assert again.loudness == louder
    assert again.tone == TONE


def test_a_plan_shapes_the_sound_by_any_step_before_the_gain_and_by_none_after() -> None:
    plan = _plan()
    for step in plan.steps:
        assert plan.model_copy(update={"steps": (step,)}).shapes_sound == (step.name in SHAPING), step.name


def test_each_step_is_an_object_of_name_parameters_and_reason_with_the_keys_that_reports_have() -> None:
    found = json.loads(_plan().model_dump_json())["steps"]
    assert [set(step) for step in found] == [{"name", "parameters", "reason"}] * len(CHAIN)
    assert found[0]["parameters"] == {"processors": [
        {"on": "both", "reason": "", "cutoff_frequency_hz": 4.0, "processor": "HighpassFilter"},
        {"on": "side", "reason": "F.", "processor": "Gain", "gain_db": 1.5},
    ]}  # fmt: skip
    assert found[1]["parameters"] == {
        "hz": [100.0, 1000.0], "mid_db": [0.0, 1.5], "side_db": [0.0, -1.0]
    }  # fmt: skip
    assert list(found[5]["parameters"]) == [
        "ceiling_dbtp", "lookahead_ms", "release_db_per_s", "hold_ms", "event_ms", "event_release_db_per_s",
        "event_rest_db", "offsets", "heeded_from",
    ]  # fmt: skip


def test_a_plan_comes_back_from_json_as_it_was() -> None:
    plan = _plan()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.model_validate(json.loads(plan.model_dump_json())) == plan


def test_settings_of_the_processors_come_back_from_their_steps() -> None:
    assert steps.compressor_settings(COMPRESSOR) == Compressor(-20.0, -21.0, -22.0, attack_ms=20.0)
    assert steps.limiter_settings(_plan()) == Limiter(-1.0)
    curve = steps.tone_curve(TONE)
    assert curve is not None
    assert (curve.hz, curve.mid_db, curve.side_db) == ((100.0, 1000.0), (0.0, 1.5), (0.0, -1.0))
    assert steps.processors(BOARD) == BOARD.parameters.processors


@pytest.mark.parametrize(
    "step",
    [
        {"name": "reverb", "parameters": {}, "reason": ""},
        {"name": "loudness", "parameters": {}, "reason": ""},
        {"name": "loudness", "parameters": {"gain_db": "loud"}, "reason": ""},
        {"name": "loudness", "parameters": {"gain_db": float("nan")}, "reason": ""},
        {"name": "saturation", "parameters": {"drive": 1.5, "peak": 0.5}, "reason": ""},
        {"name": "tone", "parameters": {"hz": [100, 1000], "mid_db": [0], "side_db": [0, 0]}, "reason": ""},
        {"name": "tone", "parameters": {"hz": [100], "mid_db": [0], "side_db": [0]}, "reason": ""},
        {"name": "board", "parameters": {"processors": []}, "reason": ""},
        {"name": "board", "parameters": {"processors": [{"processor": "Reverb"}]}, "reason": ""},
        {"name": "board", "parameters": {"processors": [{"processor": "PeakFilter", "gain_db": 3}]}, "reason": ""},
        {"name": "limiter", "parameters": {"ceiling_dbtp": -1.0}, "reason": ""},
    ],
    ids=[
        "unknown",
        "empty",
        "no number",
        "nan",
        "out of bounds",
        "uneven",
        "one point",
        "empty board",
        "not ours",
        "no frequency",
        "incomplete",
    ],
)
def test_a_step_that_no_render_could_take_is_no_step(step: dict[str, object]) -> None:
    data = json.loads(_plan().model_dump_json())
    with pytest.raises(ValidationError):
        Plan.model_validate({**data, "steps": [step]})


def test_a_limiters_numbers_are_bounded() -> None:
    known = LIMITER.parameters.model_dump()
    for name in ("lookahead_ms", "release_db_per_s"):
        with pytest.raises(ValidationError):
            LimiterParameters.model_validate({**known, name: 0.0})
