"""What a kind of job is, as data: its options, inputs and outputs, what they are held to, and what the work costs.

Store, protocol, tiers and pages know a job's kind by its name, and hand its options, outputs and report on as they are;
whoever must know more asks its `JobKind`. A kind of one's own is a subclass in one file, and one function in another
that does the work (`JobKind.run`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, ValidationError

from mastering.contract.faults import Fault, FaultCode
from mastering.contract.records import Facts, JobOptions, Record

OUTPUT_NAME = r"^[a-z0-9]{1,16}$"
"""Of an output within its kind, as in an address: wav24, midi, json …"""
KIND_NAME = r"^[a-z][a-z0-9]{0,15}$"
"""Of a kind, as in the API."""
STAGE_NAME = r"^[a-z][a-z0-9_]{0,31}$"


@dataclass(frozen=True)
class OutputType:
    """The file that an output is: its extension without the dot, its media type, and its name for people."""

    extension: str
    media_type: str
    title: str


class ExpectedAudio(Record):
    """An output that is audio, and what it must be. `tolerance_frames` is for coders, which pad, and resamplers."""

    frames: int
    rate_hz: int
    channels: int
    tolerance_frames: int = 0


class ExpectedJson(Record):
    """An output that is one JSON object, in UTF-8, with these keys at least."""

    keys: tuple[Annotated[str, Field(max_length=64)], ...] = ()


ExpectedOutput = ExpectedAudio | ExpectedJson


@dataclass(frozen=True)
class LogField:
    """What a field of the render record may hold: one of these words, a number (float, int) or yes and no (bool)."""

    of: tuple[str, ...] | type[float] | type[int] | type[bool]
    text: str = ""
    """For the documentation, where the words alone do not say it."""


_WORKING_BYTES = 384 * 1024 * 1024
"""What any work may allocate, however short the song."""
_SAMPLE_BYTES = 4
"""And the song once, as float32: what is streamed needs less."""
_PROCESSOR_FREE_S = 120.0
_PROCESSOR_FACTOR = 8.0
"""Times the slowest tier's pace: for slow machines, several threads and many outputs."""

OptionsT = TypeVar("OptionsT", bound=JobOptions)


class JobKind(Generic[OptionsT]):
    """One kind of job. A subclass sets what has no value here, and overrides what would be answered otherwise."""

    name: str
    title: str
    """What people read, as in "Master"."""
    options: type[OptionsT]
    report: type[Record]
    """What the work says of itself beside its outputs."""
    outputs: Mapping[str, OutputType]
    """By name, all that can be asked for."""
    stages: tuple[str, ...]
    """What the work does, in the order it does it: the words of its progress."""
    run: str
    """The function that does the work, as module:function, in a process of its own.

    ``run(source, options, *, references, open_output, progress)`` returns the report and raises Fault. `source` and
    `references` are binary files, ``open_output(name)`` gives an empty one, ``progress(stage, fraction)`` tells how far
    it is.
    """
    paces: Mapping[str, Mapping[str, float]]
    """Kinds of work that differ in their time → tier → seconds a minute of audio, before anything was measured."""
    gpu_paces: frozenset[str] = frozenset()
    """The paces of which a GPU does a part, where one is lent by the call."""
    pace_titles: Mapping[str, str] = {}
    """What people read of each pace, where it is more than its name."""
    pace_modules: Mapping[str, tuple[str, ...]] = {}
    """Pace → what must be installed for it beside `modules`."""
    pace_cures: Mapping[str, str] = {}
    """Pace → what installs that, as a sentence for whoever runs the machine."""
    modules: tuple[str, ...] = ()
    """What must be installed where it is done: torch, onnxruntime …"""
    models: Mapping[str, str] = {}
    """Name → digest of each model that it uses. A backend with another one does another job."""
    max_bytes: int | None = None
    max_duration_s: float | None = None
    """Of its songs, where that is less than the service takes."""
    max_references: int = 0
    """Recordings beside the song that its options may refer to."""
    output_ttl_s: float | None = None
    """How long outputs may be kept, where that is less than the service keeps any."""
    log_fields: Mapping[str, LogField] = {}
    """Of the render record, beside those that all kinds have."""

    def check(self, options: OptionsT) -> None:
        """Raise Fault(bad_settings) for options that are valid each and can't be had together, or not here."""

    def pace(self, options: OptionsT) -> str:
        """Which of `paces` the work has."""
        return next(iter(self.paces))

    def work_factor(self, options: OptionsT) -> float:
        """How much longer the work takes with these options than with the defaults of its pace."""
        return 1.0

    def expected(self, options: OptionsT, facts: Facts, output: str) -> ExpectedOutput:
        """What the output must be that is made of a recording with these facts."""
        raise NotImplementedError

    def output_bound_bytes(self, options: OptionsT, output: str, duration_s: float, rate_hz: int, channels: int) -> int:
        """The most bytes that the output can have, but for a cover picture."""
        raise NotImplementedError

    def memory_bytes(self, options: OptionsT, duration_s: float, rate_hz: int, channels: int) -> int:
        """The most that the work may allocate, beyond the code that does it, for recordings of `duration_s` together.

        A work that wants more ends with Fault(resource_limit).
        """
        return _WORKING_BYTES + int(duration_s * rate_hz) * channels * _SAMPLE_BYTES

    def processor_s(self, options: OptionsT, duration_s: float) -> int:
        """The most processor time in seconds that the work may take for recordings of `duration_s` together."""
        slowest = max(self.paces[self.pace(options)].values())
        return math.ceil(_PROCESSOR_FREE_S + _PROCESSOR_FACTOR * slowest * duration_s / 60)

    def log_values(self, options: OptionsT) -> Mapping[str, object]:
        """The values of `log_fields`; None for one that does not apply."""
        return {}

    def measured_duration_s(self, report: Record) -> float | None:
        """The song's length as the work found it, for those whose header does not tell; None where it does not say."""
        return None

    def lasting_report(self, report: Mapping[str, Any]) -> dict[str, Any] | None:
        """What of the report may be kept, in RAM, when the outputs are gone: nothing by which a song is recognised."""
        return None

    def parse(self, options: Mapping[str, Any]) -> OptionsT:
        """The options, checked, each output named once. Raises Fault(bad_settings), which names the option."""
        try:
            parsed = self.options.model_validate_json(json.dumps(options))  # as JSON, where a list is a tuple
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            raise _first_mistake(error) from None
        wanted = tuple(dict.fromkeys(parsed.outputs))
        unknown = [name for name in wanted if name not in self.outputs]
        if unknown or not wanted:
            choices = ", ".join(self.outputs)
            what = f"There is no output '{unknown[0][:16]}' of this kind." if unknown else "No output is asked for."
            raise Fault(FaultCode.BAD_SETTINGS, f"{what} Choose among: {choices}.", field="outputs")
        parsed = parsed.model_copy(update={"outputs": wanted})
        self.check(parsed)
        return parsed

    def pace_title(self, pace: str) -> str:
        """What people read of a pace."""
        return self.pace_titles.get(pace, pace)

    def work(self, options: OptionsT) -> str:
        """The name by which the time for such work is estimated: the kind's and the pace's."""
        return f"{self.name}/{self.pace(options)}"

    def size_bound_bytes(self, options: OptionsT, duration_s: float, rate_hz: int, channels: int) -> int:
        """The most bytes that all outputs together can have, but for a cover picture."""
        return sum(self.output_bound_bytes(options, one, duration_s, rate_hz, channels) for one in options.outputs)


def _first_mistake(error: Exception) -> Fault:
    """Where the options are wrong, and what is taken there. Pydantic's own text quotes the input, which may be long."""
    if not isinstance(error, ValidationError):
        return Fault(FaultCode.BAD_SETTINGS, "The options are no JSON that can be read.", field="options")
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))[:64] or "options"
    return Fault(FaultCode.BAD_SETTINGS, f"{where}: {first['msg']}.", field=where)
