"""The kind `master`: a song in, masters in the formats that are wanted out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mastering.contract import presets
from mastering.contract.formats import CODER_PADDING_FRAMES, OutputFormat
from mastering.contract.kinds.kind import ExpectedAudio, JobKind, LogField, OutputType
from mastering.contract.records import Effort, Facts, Record, Settings, Stage
from mastering.contract.report import Report

RESAMPLING_TOLERANCE_FRAMES = 2
"""Of a song that was resampled: its length times the ratio of the rates is seldom a whole number."""
_BYTES_PER_SAMPLE = {
    OutputFormat.WAV16: 2,
    OutputFormat.WAV24: 3,
    OutputFormat.WAV32F: 4,
    OutputFormat.FLAC: 3,
    OutputFormat.ALAC: 3,
}
"""Lossless formats; a coder that gains nothing stores its samples as they are."""
_LOSSY_BYTES_PER_S = 64_000
"""More than the 320 kbit/s and the variable rates that the lossy coders are asked for."""
_FIT_BYTES = 512 * 1024 * 1024
"""torch, loaded for the fit alone, and its tensors."""
_SECOND_METER_BYTES = 96 * 1024 * 1024
"""What the second meters hold while they read a master: pieces of some seconds in float64, and two threads."""
_MOST_AT_ONCE = 4
"""Formats that are made side by side (`engine.delivery`)."""
_OVERHEAD_BYTES = 1 << 20
"""Headers, tables and texts of one output, in bytes."""


class Master(JobKind[Settings]):
    """The kind of job that makes a master of a song (`mastering.engine` does it)."""

    name = "master"
    title = "Master"
    options = Settings
    report = Report
    outputs = {form.value: OutputType(form.extension, form.media_type, form.label) for form in OutputFormat}  # noqa: RUF012
    stages = tuple(stage.value for stage in Stage)
    run = "mastering.kinds.master:run"
    paces = {  # noqa: RUF012
        Effort.QUICK.value: {"managed": 4.0, "gpu_space": 6.0, "cpu_space": 25.0},
        Effort.FIT.value: {"managed": 12.0, "gpu_space": 14.0, "cpu_space": 60.0},
    }
    pace_titles = {Effort.QUICK.value: "Quick", Effort.FIT.value: "Refined"}  # noqa: RUF012
    pace_modules = {Effort.FIT.value: ("torch",)}  # noqa: RUF012
    pace_cures = {  # noqa: RUF012
        Effort.FIT.value: "It needs torch: 'make setup-torch' on a worker's machine installs it; then start that anew."
    }
    gpu_paces = frozenset({Effort.FIT.value})
    max_references = 16

    @property
    def log_fields(self) -> Mapping[str, LogField]:  # type: ignore[override]
        return {
            "target": LogField(tuple(presets.presets().targets), "name of a delivery target"),
            "style": LogField(tuple(presets.presets().styles), "name of a style"),
            "amount_percent": LogField(float),
            "loudness_lufs": LogField(float),
            "ceiling_dbtp": LogField(float),
            "master_rate_hz": LogField(int),
            "max_crest_loss_db": LogField(float),
            "keep_tags": LogField(bool),
            "effort": LogField(tuple(Effort)),
        }

    def check(self, options: Settings) -> None:
        presets.check(options)

    def pace(self, options: Settings) -> str:
        return options.effort.value

    def work_factor(self, options: Settings) -> float:
        """By the formats: decoding, measuring and rendering are done once for all of them."""
        added = sum(form.added_work for form in options.outputs) - sum(form.added_work for form in Settings().outputs)
        quick, own = (self.paces[pace]["managed"] for pace in (Effort.QUICK.value, self.pace(options)))
        return max(0.5, 1 + added * quick / own)

    def memory_bytes(self, options: Settings, duration_s: float, rate_hz: int, channels: int) -> int:
        fit_bytes = _FIT_BYTES if options.effort is Effort.FIT else 0
        meter_bytes = _SECOND_METER_BYTES * min(len(options.outputs), _MOST_AT_ONCE)
        return super().memory_bytes(options, duration_s, rate_hz, channels) + fit_bytes + meter_bytes

    def expected(self, options: Settings, facts: Facts, output: str) -> ExpectedAudio:
        form = OutputFormat(output)
        rate_hz = form.rate_hz(options.rate_hz or facts.rate_hz)
        return ExpectedAudio(
            frames=round(facts.frames * rate_hz / facts.rate_hz),
            rate_hz=rate_hz,
            channels=facts.channels,
            tolerance_frames=CODER_PADDING_FRAMES if form.is_lossy else RESAMPLING_TOLERANCE_FRAMES,
        )

    def output_bound_bytes(self, options: Settings, output: str, duration_s: float, rate_hz: int, channels: int) -> int:
        sample_bytes = _BYTES_PER_SAMPLE.get(OutputFormat(output))
        bytes_per_s = (
            _LOSSY_BYTES_PER_S if sample_bytes is None else sample_bytes * channels * (options.rate_hz or rate_hz)
        )
        return int(bytes_per_s * duration_s) + _OVERHEAD_BYTES

    def log_values(self, options: Settings) -> Mapping[str, object]:
        own = {name: getattr(options, name) for name in self.log_fields if name != "master_rate_hz"}
        return {**own, "master_rate_hz": options.rate_hz}

    def measured_duration_s(self, report: Record) -> float | None:
        return report.before.duration_s if isinstance(report, Report) else None

    def lasting_report(self, report: Mapping[str, Any]) -> dict[str, Any] | None:
        """Without its curves over time, by which a song might be recognised."""
        return {**report, "traces": None}


MASTER = Master()
