"""The contract between the engine and whoever asks it for a master: records, formats and faults.

All that the router and the Spaces may import of the engine, beside the protocol and the presets. Light on purpose:
pydantic, no numpy, no torch.
"""

from __future__ import annotations

from mastering.contract.faults import USER_FAULTS, Fault, FaultCode
from mastering.contract.formats import (
    MAX_CHANNELS,
    MAX_DURATION_S,
    MAX_INPUT_BYTES,
    MAX_RATE_HZ,
    MIN_DURATION_S,
    MIN_RATE_HZ,
    OutputFormat,
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
