"""The records of a song: what is asked for it, what a probe learns of it and what the meters say of it.

Names carry their units; every record is frozen. Conventions: audio is float32 ``(channels, frames)``; loudness in LUFS
and loudness range in LU by ITU-R BS.1770-5 and EBU Tech 3342; true peaks in dBTP; times in seconds unless the name
says otherwise.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mastering.contract.formats import OutputFormat
from mastering.contract.limits import MAX_RATE_HZ, MIN_RATE_HZ


class Record(BaseModel):
    """A frozen record that refuses fields it does not know and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON schema, its fields described by the strings below them.

        Read when a schema is asked for: pydantic's own `use_attribute_docstrings` reads the source of every record
        whenever a program starts, which is a fifth of the time that a router or a worker takes to import its modules.
        """
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in _field_docstrings(cls):
            key = cls.model_fields[name].alias or name
            if key in properties:
                properties[key].setdefault("description", text)
        return schema


def _field_docstrings(record: type[Record]) -> Iterator[tuple[str, str]]:
    """Fields, the inherited ones last, each with the string that stands below it."""
    for base in record.__mro__:
        if not issubclass(base, Record):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, below in pairwise(getattr(definition, "body", ())):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                    yield name, inspect.cleandoc(text)


class Effort(StrEnum):
    """How a plan is found."""

    QUICK = "quick"
    """In closed form, on any CPU."""
    FIT = "fit"
    """Refined by gradient descent (`mastering.fit`), on a GPU where there is one."""


class JobOptions(Record):
    """What is asked of a job. Each kind of job has a record of its own, with its options beside the outputs."""

    outputs: tuple[str, ...]
    """Names of the outputs that are wanted, each once. With a default, as every option."""


class Settings(JobOptions):
    """What is asked of a master. `target` and `style` are names from `mastering.contract.presets`."""

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
