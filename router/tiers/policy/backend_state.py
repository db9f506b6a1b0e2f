"""The states of a backend, one enumeration for breaker, fleet, choice, dashboard and metrics."""

from __future__ import annotations

from enum import StrEnum


class BackendState(StrEnum):
    """Whether a backend may get work, and if not, why.

    The circuit breaker moves through the first six. The others come from outside: the backend's own report, its
    version, its provider's quota, or an operator.
    """

    UNKNOWN = "unknown"
    WARMING = "warming"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    OPEN = "open"
    HALF_OPEN = "half-open"
    SLEEPING = "sleeping"
    PAUSED = "paused"
    QUOTA_OUT = "quota-out"
    INCOMPATIBLE = "incompatible"
    """It answers, and speaks another version of the protocol, or has another engine."""
    DRAINING = "draining"
    MAINTENANCE = "maintenance"


UP = frozenset({BackendState.HEALTHY, BackendState.SUSPECT, BackendState.HALF_OPEN, BackendState.SLEEPING})
"""States in which a backend could take a job, or is at one."""
