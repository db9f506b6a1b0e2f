"""The contract between the engine and its callers: records, formats, limits and faults.

All that the router and the Spaces may import of the engine, beside the protocol and the presets. Light on purpose:
pydantic, no numpy, no torch.
"""

from __future__ import annotations

from mastering.contract.faults import USER_FAULTS, Fault, FaultCode, accepted_numbers
from mastering.contract.formats import CODER_PADDING_FRAMES, OutputFormat
from mastering.contract.limits import (
    MAX_CHANNELS,
    MAX_DURATION_S,
    MAX_INPUT_BYTES,
    MAX_RATE_HZ,
    MIN_DURATION_S,
    MIN_RATE_HZ,
)
from mastering.contract.plan import (
    CHAIN,
    ENGINE_VERSION,
    SHAPING,
    BoardParameters,
    BoardStep,
    CompressorParameters,
    CompressorStep,
    LimiterParameters,
    LimiterStep,
    LoudnessParameters,
    LoudnessStep,
    Plan,
    PlanStep,
    SaturationParameters,
    SaturationStep,
    ToneParameters,
    ToneStep,
)
from mastering.contract.records import (
    BandLevel,
    Character,
    Effort,
    Facts,
    JobOptions,
    Measurements,
    Record,
    Settings,
    Stage,
)
from mastering.contract.report import LoudnessCost, MasterCheck, Readings, Report, Traces

__all__ = [
    "CHAIN",
    "CODER_PADDING_FRAMES",
    "ENGINE_VERSION",
    "MAX_CHANNELS",
    "MAX_DURATION_S",
    "MAX_INPUT_BYTES",
    "MAX_RATE_HZ",
    "MIN_DURATION_S",
    "MIN_RATE_HZ",
    "SHAPING",
    "USER_FAULTS",
    "BandLevel",
    "BoardParameters",
    "BoardStep",
    "Character",
    "CompressorParameters",
    "CompressorStep",
    "Effort",
    "Facts",
    "Fault",
    "FaultCode",
    "JobOptions",
    "LimiterParameters",
    "LimiterStep",
    "LoudnessCost",
    "LoudnessParameters",
    "LoudnessStep",
    "MasterCheck",
    "Measurements",
    "OutputFormat",
    "Plan",
    "PlanStep",
    "Readings",
    "Record",
    "Report",
    "SaturationParameters",
    "SaturationStep",
    "Settings",
    "Stage",
    "ToneParameters",
    "ToneStep",
    "Traces",
    "accepted_numbers",
]
