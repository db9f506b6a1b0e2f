"""The records of a master: what is asked for, what a song is, what was decided and what came of it.

Names carry their units; every record is frozen. Conventions: audio is float32 ``(channels, frames)``; loudness in LUFS
and loudness range in LU by ITU-R BS.1770-5 and EBU Tech 3342; true peaks in dBTP; times in seconds unless the name
says otherwise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mastering.contract.formats import OutputFormat
from mastering.contract.limits import MAX_RATE_HZ, MIN_RATE_HZ

ENGINE_VERSION = "0.1.0"
"""Same plan, same decoded PCM, same engine version: the same 24-bit master."""


class Record(BaseModel):
    """A frozen record that refuses fields it does not know and numbers that are not finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null", use_attribute_docstrings=True
    )


class Effort(StrEnum):
    """How a plan is found."""

    QUICK = "quick"
    """In closed form, on any CPU."""
    FIT = "fit"
    """Refined by gradient descent (`mastering.fit`), on a GPU where there is one."""


class Settings(Record):
    """What the person asked for. `target` and `style` are names from `mastering.contract.presets`."""

    target: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")] = "streaming"
    """Where the master is going: the name of a delivery target."""
    style: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")] = "neutral"
    """The name of a style."""
    amount_percent: Annotated[float, Field(ge=0, le=100)] = 60.0
    """How much of what the plan would change is changed."""
    loudness_lufs: Annotated[float | None, Field(ge=-36, le=-5)] = None
    """Instead of the target's loudness."""
    ceiling_dbtp: Annotated[float | None, Field(ge=-9, le=0)] = None
    """Instead of the target's true-peak ceiling."""
    rate_hz: Annotated[int | None, Field(ge=MIN_RATE_HZ, le=MAX_RATE_HZ)] = None
    """Sample rate of the master; None keeps the source's."""
    outputs: Annotated[tuple[OutputFormat, ...], Field(min_length=1, max_length=len(OutputFormat))] = (
        OutputFormat.WAV24,
    )
    """Formats of the master, all from one render."""
    max_crest_loss_db: Annotated[float | None, Field(ge=0, le=40)] = None
    """Stay quieter than asked rather than lose more peak-to-loudness ratio than this."""
    keep_tags: bool = True
    """Carry the song's tags and cover art over to the master."""
    effort: Effort = Effort.QUICK
    """How the plan is found."""
    reference_weights: Annotated[tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(max_length=16)] = ()
    """One for each reference; none at all weighs them alike."""


class Stage(StrEnum):
    """What the engine is doing, in the order it does it."""

    DECODE = "decode"
    ANALYSE = "analyse"
    PLAN = "plan"
    FIT = "fit"
    RENDER = "render"
    VERIFY = "verify"
    ENCODE = "encode"


class Facts(Record):
    """What a probe learned of untrusted bytes: enough to route the job, no more (no fingerprint, no digest)."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    frames: int
    duration_s: float
    lossy: bool


class BandLevel(Record):
    """Level of one third-octave band of the mid and the side signal, in dB (0 dB = full-scale sine)."""

    centre_hz: float
    mid_db: float
    side_db: float


class Character(Record):
    """How a recording moves and how wide it is: what a fit compares beside the spectrum."""

    level_quantiles_db: tuple[tuple[float, ...], ...]
    """Levels of tenths of a second below and above the loudness (10, 30, 50, 70, 90, 97 %), pauses left out: of the
    low, the middle, the high band and the K-weighted whole."""
    crest_db: float
    """Mean over 3 s of highest sample over RMS."""
    width_db: tuple[float, ...]
    """Side over mid energy in the low, the middle and the high band."""


class Measurements(Record):
    """What the meters say of one recording. None where a number has no meaning (the loudness of silence)."""

    rate_hz: int
    channels: int
    frames: int
    duration_s: float
    integrated_lufs: float | None
    max_momentary_lufs: float | None
    max_short_term_lufs: float | None
    loudness_range_lu: float | None
    true_peak_dbtp: float
    sample_peak_dbfs: float
    crest_db: float
    """True peak over RMS of the whole recording."""
    peak_to_loudness_lu: float | None
    correlation: float | None
    """Between left and right, −1 … 1; None for mono."""
    width_db: float | None
    """Side over mid energy; None for mono."""
    dc_offset: float
    clipped_samples: int
    spectrum: tuple[BandLevel, ...]
    character: Character | None = None
    """Only where it was asked for: of a reference that a plan is fitted to, and by `mastering analyse`."""


class PlanStep(Record):
    """One decision of the plan: what will be done, with which numbers, and why."""

    name: str
    parameters: dict[str, float | int | bool | str | list[float]]
    reason: Annotated[str, Field(max_length=500)]


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
        return next((step for step in self.steps if step.name == name), None)


class LoudnessCost(Record):
    """What another loudness would have cost the same song."""

    loudness_lufs: float
    reached_lufs: float
    peak_to_loudness_lu: float
    limited_percent: float
    """Share of the time in which the limiter takes more than 1 dB."""
    mean_reduction_db: float
    """What the limiter takes, on average over time."""
    loudness_range_lu: float | None


class Traces(Record):
    """Readings over time, one every `step_s`, for plots. Short-term loudness in LUFS, None where there is none."""

    step_s: float
    loudness_before_lufs: tuple[float | None, ...]
    loudness_after_lufs: tuple[float | None, ...]
    gain_reduction_db: tuple[float, ...]
    """The most that the limiter took in each step, 0 or less."""
    costs: tuple[LoudnessCost, ...] = ()
    """Only where they were asked for."""


class Report(Record):
    """What was done to a song, in numbers."""

    engine_version: str
    before: Measurements
    after: Measurements
    plan: Plan
    flags: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=64)] = ()
    """Honest remarks on the source or the master, one sentence each."""
    traces: Traces | None = None
    references: tuple[tuple[BandLevel, ...], ...] = ()
    """Spectra that the song was matched to, each at its reference's own level."""
