"""The report on a master: what was done to a song, in numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mastering.contract.plan import Plan
from mastering.contract.records import BandLevel, Measurements, Record


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


class Readings(Record):
    """What one set of meters says of a master, decoded from its own file."""

    integrated_lufs: float | None
    true_peak_dbtp: float


class MasterCheck(Record):
    """One format of the master by two sets of meters that share no code."""

    output: str
    ours: Readings
    second: Readings | None
    """By pyloudnorm (De Man's filters) and soxr at 16 x; None where it was left out."""


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
    checks: tuple[MasterCheck, ...] = ()
    """One for each format that was made, lossless ones first."""
