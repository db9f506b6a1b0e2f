"""The contract between the engine and whoever asks it for a master: records, formats, limits and faults.

All that the router and the Spaces may import of the engine, beside the protocol and the presets. Light on purpose:
pydantic, no numpy, no torch.
"""

from __future__ import annotations

from mastering.contract.faults import USER_FAULTS, Fault, FaultCode
from mastering.contract.formats import CODER_PADDING_FRAMES, OutputFormat
from mastering.contract.limits import (
    MAX_CHANNELS,
    MAX_DURATION_S,
    MAX_INPUT_BYTES,
    MAX_RATE_HZ,
    MIN_DURATION_S,
    MIN_RATE_HZ,
)
from mastering.contract.records import (
    ENGINE_VERSION,
    BandLevel,
    Character,
    Effort,
    Facts,
    LoudnessCost,
    Measurements,
    Plan,
    PlanStep,
    Record,
    Report,
    Settings,
    Stage,
    Traces,
)

__all__ = [
    "CODER_PADDING_FRAMES",
    "ENGINE_VERSION",
    "MAX_CHANNELS",
    "MAX_DURATION_S",
    "MAX_INPUT_BYTES",
    "MAX_RATE_HZ",
    "MIN_DURATION_S",
    "MIN_RATE_HZ",
    "USER_FAULTS",
    "BandLevel",
    "Character",
    "Effort",
    "Facts",
    "Fault",
    "FaultCode",
    "LoudnessCost",
    "Measurements",
    "OutputFormat",
    "Plan",
    "PlanStep",
    "Record",
    "Report",
    "Settings",
    "Stage",
    "Traces",
]
