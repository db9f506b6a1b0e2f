"""The kind `levels`: how loud a song is from second to second, as JSON, and the song again as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from mastering.contract import Facts, Fault, FaultCode, Record
from mastering.contract.kinds import (
    ExpectedAudio,
    ExpectedJson,
    ExpectedOutput,
    JobKind,
    JobOptions,
    LogField,
    OutputType,
)


class LevelsOptions(JobOptions):
    outputs: tuple[str, ...] = ("json",)
    window_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Length of the windows that are measured."""
    floor_dbfs: Annotated[float, Field(ge=-120, le=0)] = -100.0
    """What a window of silence is called."""


class LevelsReport(Record):
    duration_s: float
    windows: int
    loudest_dbfs: float


class Levels(JobKind[LevelsOptions]):
    name = "levels"
    title = "Levels"
    options = LevelsOptions
    report = LevelsReport
    outputs = {  # noqa: RUF012
        "json": OutputType("json", "application/json", "Levels as JSON"),
        "wav16": OutputType("wav", "audio/wav", "The song as it was, WAV of 16 bit"),
    }
    stages = ("listen", "write")
    run = "tests.kinds.levels_work:run"
    paces = {"usual": {"managed": 0.5, "gpu_space": 1.0, "cpu_space": 2.0}}  # noqa: RUF012
    max_duration_s = 600.0
    log_fields = {"window_s": LogField(float)}  # noqa: RUF012

    def check(self, options: LevelsOptions) -> None:
        if options.window_s > 5 and options.floor_dbfs > -20:
            raise Fault(FaultCode.BAD_SETTINGS, "Such long windows want a lower floor.", field="floor_dbfs")

    def expected(self, options: LevelsOptions, facts: Facts, output: str) -> ExpectedOutput:
        if output == "json":
            return ExpectedJson(keys=("levels_dbfs", "window_s"))
        return ExpectedAudio(frames=facts.frames, rate_hz=facts.rate_hz, channels=facts.channels)

    def output_bound_bytes(
        self, options: LevelsOptions, output: str, duration_s: float, rate_hz: int, channels: int
    ) -> int:
        return (
            int(32 * duration_s / options.window_s if output == "json" else 2 * channels * rate_hz * duration_s) + 4096
        )

    def log_values(self, options: LevelsOptions) -> Mapping[str, object]:
        return {"window_s": options.window_s}

    def lasting_report(self, report: Mapping[str, Any]) -> dict[str, Any]:
        return dict(report)


LEVELS = Levels()
