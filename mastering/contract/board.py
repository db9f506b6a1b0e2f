"""The processors of a board: pedalboard's filters and effects by pedalboard's own names, with their numbers.

Plans list them as they are used, styles (`presets.toml`) as they are at an amount of 100 %.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from mastering.contract.limits import MAX_RATE_HZ
from mastering.contract.records import Record

Side = Literal["both", "mid", "side"]
FrequencyHz = Annotated[float, Field(gt=0, le=MAX_RATE_HZ / 2)]
GainDb = Annotated[float, Field(ge=-24, le=24)]
Q = Annotated[float, Field(ge=0.1, le=20)]


class _Processor(Record):
    on: Side = "both"
    """Both channels, the mid, (left + right) / 2, or the side, (left − right) / 2. A mono song is all mid."""
    reason: Annotated[str, Field(max_length=200)] = ""

    def scaled(self, amount: float) -> Self:
        """The same with `amount` (0 … 1) of its effect; what can't be done in part is done whole."""
        return self


class _Filter(_Processor):
    cutoff_frequency_hz: FrequencyHz
    """Of a shelf the middle of its slope, of a bell its centre; of a first-order filter where it takes 3 dB."""


class _GainFilter(_Filter):
    gain_db: GainDb
    q: Q = 0.7071

    def scaled(self, amount: float) -> Self:
        return self.model_copy(update={"gain_db": round(self.gain_db * amount, 3)})


class HighpassFilter(_Filter):
    """First order: 6 dB an octave. Several in a row are steeper."""

    processor: Literal["HighpassFilter"] = "HighpassFilter"


class LowpassFilter(_Filter):
    """First order: 6 dB an octave. Several in a row are steeper."""

    processor: Literal["LowpassFilter"] = "LowpassFilter"


class LowShelfFilter(_GainFilter):
    """Lifts or lowers what lies below its frequency."""

    processor: Literal["LowShelfFilter"] = "LowShelfFilter"


class PeakFilter(_GainFilter):
    """A bell around its frequency, the narrower the higher its Q."""

    processor: Literal["PeakFilter"] = "PeakFilter"


class HighShelfFilter(_GainFilter):
    """Lifts or lowers what lies above its frequency."""

    processor: Literal["HighShelfFilter"] = "HighShelfFilter"


class Gain(_Processor):
    """A gain; on the side it is the width."""

    processor: Literal["Gain"] = "Gain"
    gain_db: Annotated[float, Field(ge=-60, le=60)]

    def scaled(self, amount: float) -> Self:
        return self.model_copy(update={"gain_db": round(self.gain_db * amount, 3)})


class Compressor(_Processor):
    """A compressor with one gain for what it is on: of two channels it follows the louder, so that nothing moves."""

    processor: Literal["Compressor"] = "Compressor"
    threshold_db: Annotated[float, Field(ge=-80, le=0)]
    """dBFS of the samples."""
    ratio: Annotated[float, Field(ge=1, le=100)]
    attack_ms: Annotated[float, Field(gt=0, le=1000)] = 10.0
    release_ms: Annotated[float, Field(gt=0, le=5000)] = 100.0

    def scaled(self, amount: float) -> Self:
        return self.model_copy(update={"ratio": round(1 + (self.ratio - 1) * amount, 4)})


class Distortion(_Processor):
    """A soft clipper (hyperbolic tangent) after `drive_db` of gain; it is not oversampled."""

    processor: Literal["Distortion"] = "Distortion"
    drive_db: Annotated[float, Field(ge=-60, le=60)]

    def scaled(self, amount: float) -> Self:
        return self.model_copy(update={"drive_db": round(self.drive_db * amount, 3)})


class Clipping(_Processor):
    """A hard clipper; it is not oversampled."""

    processor: Literal["Clipping"] = "Clipping"
    threshold_db: Annotated[float, Field(ge=-60, le=0)]


Processor = Annotated[
    HighpassFilter
    | LowpassFilter
    | LowShelfFilter
    | PeakFilter
    | HighShelfFilter
    | Gain
    | Compressor
    | Distortion
    | Clipping,
    Field(discriminator="processor"),
]
"""One processor of a board."""

LEVEL_DEPENDENT = (Compressor, Distortion, Clipping)
"""Those whose effect depends on how loud the song comes in."""
_TITLES = {
    "HighpassFilter": "high-pass",
    "LowpassFilter": "low-pass",
    "LowShelfFilter": "low shelf",
    "PeakFilter": "bell",
    "HighShelfFilter": "high shelf",
    "Gain": "gain",
    "Compressor": "compressor",
    "Distortion": "soft clipper",
    "Clipping": "hard clipper",
}
PROCESSORS = frozenset(_TITLES)
"""Names of all processors."""
_NUMBERS = {
    "cutoff_frequency_hz": "{:g} Hz",
    "gain_db": "{:+.2f} dB",
    "q": "Q {:g}",
    "threshold_db": "threshold {:g} dB",
    "ratio": "{:g}:1",
    "attack_ms": "attack {:g} ms",
    "release_ms": "release {:g} ms",
    "drive_db": "drive {:+.2f} dB",
}
"""How parameters are written."""


def described(processor: Processor) -> str:
    """The processor as an engineer says it: "high shelf 5400 Hz, +1.50 dB, Q 0.7, on the side"."""
    values = processor.model_dump(exclude={"processor", "on", "reason"})
    numbers = ", ".join(_NUMBERS[name].format(value) for name, value in values.items()).replace("-", "−")
    where = "" if processor.on == "both" else f", on the {processor.on}"
    return f"{_TITLES[processor.processor]} {numbers}{where}"
