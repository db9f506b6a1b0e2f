"""Kinds of jobs as data: what a kind says of its options and outputs, and how kinds of one's own are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mastering.contract import Effort, Facts, Fault, FaultCode, OutputFormat, Settings
from mastering.contract import kinds as registry
from mastering.contract.kinds import MASTER, ExpectedAudio, JobKind, WrongVariableError, job_kind, job_kinds
from mastering.contract.kinds.master import Master
from tests.kinds.levels import LEVELS, Levels, LevelsOptions

FACTS = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=441_000, duration_s=10.0, lossy=False)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """MASTERING_KINDS is read anew when it was set by this."""
    job_kinds.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    job_kinds.cache_clear()


def name_kinds(named: pytest.MonkeyPatch, value: str) -> None:
    named.setenv(registry.VARIABLE, value)
    job_kinds.cache_clear()


def refused(kind: JobKind[Any], options: dict[str, Any]) -> Fault:
    with pytest.raises(Fault) as caught:
        kind.parse(options)
    assert caught.value.code is FaultCode.BAD_SETTINGS
    return caught.value


def test_a_master_without_options_is_the_usual_one() -> None:
    assert MASTER.parse({}) == Settings()
    assert MASTER.work(MASTER.parse({})) == "master/quick"
    assert MASTER.work(MASTER.parse({"effort": "fit"})) == "master/fit"


def test_what_is_parsed_is_the_same_again_and_names_each_output_once() -> None:
    parsed = MASTER.parse({"outputs": ["flac", "mp3", "flac"], "loudness_lufs": -9, "effort": "fit"})
    assert parsed.outputs == (OutputFormat.FLAC, OutputFormat.MP3)
    assert MASTER.parse(parsed.model_dump(mode="json")) == parsed


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"amount_percent": 101}, "amount_percent"),
        ({"outputs": ["wav25"]}, "outputs.0"),
        ({"outputs": []}, "outputs"),
        ({"stile": "warm"}, "stile"),
        ({"loudness_lufs": float("nan")}, "loudness_lufs"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str) -> None:
    fault = refused(MASTER, options)
    assert fault.numbers == {"field": field}
    assert fault.message.startswith(f"{field}: ")


def test_what_is_no_json_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for wrong in (object(), deep):
        assert refused(MASTER, {"style": wrong}).numbers == {"field": "options"}


def test_an_unknown_style_says_which_there_are() -> None:
    assert "warm" in refused(MASTER, {"style": "nosuch"}).message


def test_an_output_of_another_kind_is_refused() -> None:
    fault = refused(LEVELS, {"outputs": ["flac"]})
    assert (fault.numbers, "json, wav16" in fault.message) == ({"field": "outputs"}, True)


@pytest.mark.parametrize(
    ("output", "rate_hz", "expected"),
    [
        ("wav24", None, (441_000, 44_100, 2)),
        ("wav24", 48_000, (480_000, 48_000, 2)),
        ("opus", None, (480_000, 48_000, 8192)),
        ("mp3", None, (441_000, 44_100, 8192)),
    ],
)
def test_a_master_is_expected_as_long_as_its_song(
    output: str, rate_hz: int | None, expected: tuple[int, int, int]
) -> None:
    frames, at_hz, tolerance = expected
    found = MASTER.expected(Settings(rate_hz=rate_hz), FACTS, output)
    assert found == ExpectedAudio(frames=frames, rate_hz=at_hz, channels=2, tolerance_frames=tolerance)


def test_each_pace_has_a_time_on_each_tier_and_each_output_a_type() -> None:
    for kind in (MASTER, LEVELS):
        assert all(set(tiers) == {"managed", "gpu_space", "cpu_space"} for tiers in kind.paces.values())
        assert set(kind.options().outputs) <= set(kind.outputs)
        assert kind.pace(kind.options()) in kind.paces
        assert all(kind.output_bound_bytes(kind.options(), name, 10.0, 44_100, 2) > 0 for name in kind.outputs)
        assert set(kind.log_values(kind.options())) == set(kind.log_fields)
    assert set(MASTER.paces) == set(Effort)


def test_what_a_kind_does_not_say_is_the_careful_answer() -> None:
    class Bare(JobKind[LevelsOptions]):
        paces = {"only": {}}  # noqa: RUF012

    assert Bare().lasting_report({"anything": 1}) is None
    assert Bare().log_values(LevelsOptions()) == {}
    assert Bare().pace(LevelsOptions()) == "only"
    assert Bare().models == {}
    with pytest.raises(NotImplementedError):
        Bare().expected(LevelsOptions(), FACTS, "json")


def test_kinds_of_ones_own_are_named_by_a_variable(named: pytest.MonkeyPatch) -> None:
    name_kinds(named, " tests.kinds.levels:LEVELS ,")
    assert list(job_kinds()) == ["master", "levels"]
    assert job_kind("levels") is LEVELS


def test_without_the_variable_there_is_the_master_alone(named: pytest.MonkeyPatch) -> None:
    name_kinds(named, "")
    assert list(job_kinds()) == ["master"]
    with pytest.raises(Fault, match="Choose one of: master") as caught:
        job_kind("levels")
    assert caught.value.numbers == {"field": "kind"}


@pytest.mark.parametrize(
    "value",
    ["nosuch:X", "tests.kinds.levels:NOSUCH", "tests.kinds.levels", "tests.kinds.levels:LevelsOptions", ":", "os:path"],
)
def test_a_variable_that_names_no_kind_says_so_in_a_line(named: pytest.MonkeyPatch, value: str) -> None:
    name_kinds(named, value)
    with pytest.raises(WrongVariableError, match="MASTERING_KINDS") as caught:
        job_kinds()
    assert "\n" not in str(caught.value)


def test_a_name_that_is_taken_and_a_field_of_the_log_that_is_taken_are_refused(
    named: pytest.MonkeyPatch,
) -> None:
    name_kinds(named, "tests.kinds.levels:LEVELS,tests.kinds.levels:LEVELS")
    with pytest.raises(WrongVariableError, match="name is taken"):
        job_kinds()

    class Masterly(Master):
        name = "masterly"

    named.setattr("tests.kinds.levels.LEVELS", Masterly())
    name_kinds(named, "tests.kinds.levels:LEVELS")
    with pytest.raises(WrongVariableError, match="field of the log"):
        job_kinds()


@pytest.mark.parametrize(("field", "value"), [("name", "../x"), ("outputs", {"a b": None}), ("stages", ("Listen",))])
def test_a_name_that_could_not_stand_in_an_address_is_refused(
    named: pytest.MonkeyPatch, field: str, value: object
) -> None:
    named.setattr(Levels, field, value)
    name_kinds(named, "tests.kinds.levels:LEVELS")
    with pytest.raises(WrongVariableError, match="is not of the form"):
        job_kinds()


def test_the_kinds_of_this_project_are_named_as_in_an_address() -> None:
    for kind in (MASTER, Levels()):
        assert kind.name.isalnum()
        assert all(name.isalnum() and len(name) <= 16 for name in kind.outputs)


def test_each_format_has_its_price_and_one_wav_is_the_unit() -> None:
    def factor(*forms: OutputFormat, effort: Effort = Effort.QUICK) -> float:
        return MASTER.work_factor(Settings(outputs=forms, effort=effort))

    assert factor(OutputFormat.WAV24) == 1.0
    three = (OutputFormat.WAV24, OutputFormat.FLAC, OutputFormat.MP3)
    assert 1.0 < factor(*three[:2]) < factor(*three) < factor(*OutputFormat)
    assert 1.0 < factor(*three, effort=Effort.FIT) < factor(*three), "most of a refinement is the same for any format"
    assert all(form.added_work > 0 for form in OutputFormat)
