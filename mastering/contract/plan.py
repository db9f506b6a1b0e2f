"""The plan of a master: which steps the chain takes, in which order, with which numbers, and why.

Each step is a record of its own kind, told apart by its name; in JSON all have the keys `name`, `parameters` and
`reason`. A new step is a record here, its name in `CHAIN`, what decides it in `mastering.engine.plan` and what does it
in `mastering.engine.render`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field, model_validator

from mastering.contract.board import Processor
from mastering.contract.limits import MAX_RATE_HZ
from mastering.contract.records import Record, Settings

CHAIN = ("board", "tone", "compressor", "saturation", "loudness", "limiter")
"""The names of all steps in the order in which the chain takes them. Plans list their steps in this order, the fit's
model of the chain follows it, and a step that has nothing to do is left out."""
SHAPING = CHAIN[: CHAIN.index("loudness")]
"""Those before the gain: what shapes the sound. Gain and limiter are solved for the shaped song."""

ENGINE_VERSION = "0.2.0"
"""Same plan, same decoded PCM, same engine version: the same 24-bit master."""

Reason = Annotated[str, Field(max_length=500)]
CurvePoints = Annotated[tuple[float, ...], Field(min_length=2, max_length=1024)]
"""Decibels. A curve has at least two points; the engine makes one for each third octave, about thirty."""
Positive = Annotated[float, Field(gt=0)]
CurveFrequencies = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=1024)]
CrossoverHz = Annotated[float, Field(gt=0, le=MAX_RATE_HZ / 2)]
Ratio = Annotated[float, Field(ge=1)]


class BoardParameters(Record):
    """Processors of pedalboard, one after the other, each with its reason."""

    processors: Annotated[tuple[Processor, ...], Field(min_length=1, max_length=128)]


class ToneParameters(Record):
    """A linear-phase tone curve for mid and side: gains in dB at rising frequencies, straight over log frequency."""

    hz: CurveFrequencies
    mid_db: CurvePoints
    side_db: CurvePoints

    @model_validator(mode="after")
    def _check_points(self) -> ToneParameters:
        if not len(self.hz) == len(self.mid_db) == len(self.side_db):
            raise ValueError("a tone curve needs one gain of the mid and one of the side for each frequency")
        return self


class CompressorParameters(Record):
    """A compressor of three bands: thresholds in dBFS (mean square), crossovers at `low_hz` and `high_hz`."""

    low_threshold_db: float
    middle_threshold_db: float
    high_threshold_db: float
    low_ratio: Ratio
    middle_ratio: Ratio
    high_ratio: Ratio
    low_gain_db: float
    middle_gain_db: float
    high_gain_db: float
    knee_db: Positive
    attack_ms: Positive
    release_ms: Positive
    low_hz: CrossoverHz
    high_hz: CrossoverHz


class SaturationParameters(Record):
    """A cubic soft clipper."""

    drive: Annotated[float, Field(ge=0, le=1)]
    """0 bends nothing, 1 as much as the cubic can."""
    peak: Positive
    """The level (linear, 1 is full scale) that is bent most."""


class LoudnessParameters(Record):
    """The gain before the limiter."""

    gain_db: float
    most_reduction_db: Positive
    """What the limiter may take of the programme, but for its highest twentieth. It may lower the loudness."""
    most_noise_lufs: float
    """Where quiet passages may be lifted to, or as far as 3 dB of limiting lift them. It may lower the loudness."""


class LimiterParameters(Record):
    """A look-ahead true-peak limiter."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    ceiling_dbtp: float
    lookahead_ms: Positive
    release_db_per_s: Positive
    hold_ms: Annotated[float, Field(ge=0)]
    """How long the gain stays down before it recovers."""
    event_ms: Positive
    """A reduction that is over sooner is a single event's: all but `event_rest_db` of it recovers at a faster pace."""
    event_release_db_per_s: Positive
    event_rest_db: Annotated[float, Field(ge=0)]
    offsets: Annotated[tuple[float, ...], Field(max_length=2)] = ()
    """What is taken out after the limiter, one for each channel: its gain makes an offset of an asymmetric wave."""
    peak_floor: Annotated[float, Field(ge=0, alias="heeded_from")]
    """The lowest peak (linear, before the gain) that was read between the samples: what is lower can't reach the
    ceiling. A render by this plan reads from the same one on, for the same samples. Its JSON key is older."""


class BoardStep(Record):
    """Clean-up, corrections and the style."""

    name: Literal["board"] = "board"
    parameters: BoardParameters
    reason: Reason


class ToneStep(Record):
    """The tone of a reference, in one filter each for mid and side."""

    name: Literal["tone"] = "tone"
    parameters: ToneParameters
    reason: Reason


class CompressorStep(Record):
    """Compression by band."""

    name: Literal["compressor"] = "compressor"
    parameters: CompressorParameters
    reason: Reason


class SaturationStep(Record):
    """Harmonics."""

    name: Literal["saturation"] = "saturation"
    parameters: SaturationParameters
    reason: Reason


class LoudnessStep(Record):
    """The gain that brings the limited song to its loudness."""

    name: Literal["loudness"] = "loudness"
    parameters: LoudnessParameters
    reason: Reason


class LimiterStep(Record):
    """The limit on true peaks."""

    name: Literal["limiter"] = "limiter"
    parameters: LimiterParameters
    reason: Reason


PlanStep = Annotated[
    BoardStep | ToneStep | CompressorStep | SaturationStep | LoudnessStep | LimiterStep, Field(discriminator="name")
]
"""One decision of the plan: what will be done, with which numbers, and why."""

StepKind = TypeVar("StepKind", BoardStep, ToneStep, CompressorStep, SaturationStep, LoudnessStep, LimiterStep)


class Plan(Record):
    """Every number the render uses. The same plan gives the same master on every tier."""

    engine_version: str
    settings: Settings
    rate_hz: int
    loudness_lufs: float
    ceiling_dbtp: float
    steps: tuple[PlanStep, ...]
    seed: int

    def step(self, name: str) -> PlanStep | None:
        """The step of that name, if the plan has it."""
        return next((step for step in self.steps if step.name == name), None)

    @property
    def board(self) -> BoardStep | None:
        return self._step_of(BoardStep)

    @property
    def tone(self) -> ToneStep | None:
        return self._step_of(ToneStep)

    @property
    def compressor(self) -> CompressorStep | None:
        return self._step_of(CompressorStep)

    @property
    def saturation(self) -> SaturationStep | None:
        return self._step_of(SaturationStep)

    @property
    def loudness(self) -> LoudnessStep | None:
        return self._step_of(LoudnessStep)

    @property
    def limiter(self) -> LimiterStep | None:
        return self._step_of(LimiterStep)

    @property
    def shapes_sound(self) -> bool:
        """Whether any step comes before the gain."""
        return any(step.name in SHAPING for step in self.steps)

    def with_steps(self, *steps: PlanStep | None) -> Plan:
        """The plan with these steps in place of those of the same names, all in the order of the chain."""
        known = {step.name: step for step in (*self.steps, *steps) if step is not None}
        return self.model_copy(update={"steps": tuple(known[name] for name in CHAIN if name in known)})

    def _step_of(self, kind: type[StepKind]) -> StepKind | None:
        return next((step for step in self.steps if isinstance(step, kind)), None)
