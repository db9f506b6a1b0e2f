"""The three tiers: order of preference, titles for people, and the times assumed before anything was measured."""

from __future__ import annotations

from mastering.contract.kinds import job_kinds
from router.tiers.policy.estimate import Ewma, SpeedEstimate

TIER_ORDER = ("managed", "gpu_space", "cpu_space")
"""The most preferred first: machines of our own before other people's, GPUs before CPUs."""
TIER_TITLES = {
    "managed": "Managed GPU workers",
    "gpu_space": "Hugging Face GPU Space",
    "cpu_space": "Hugging Face CPU Space",
}
"""What people read of each tier, by its name in settings and records."""


def _prior(tier: str, upload_mib_per_s: float, fetch_s: float, cold_start_s: float) -> SpeedEstimate:
    kinds = job_kinds().values()
    work = {f"{kind.name}/{pace}": Ewma(by_tier[tier]) for kind in kinds for pace, by_tier in kind.paces.items()}
    return SpeedEstimate(Ewma(1 / upload_mib_per_s), work, Ewma(fetch_s), Ewma(cold_start_s))


PRIORS = {
    "managed": _prior("managed", 50, 0.5, 10),
    "gpu_space": _prior("gpu_space", 8, 3, 60),
    "cpu_space": _prior("cpu_space", 8, 3, 90),
}
"""What is assumed of a tier before its first job; some jobs later it no longer matters. The work's own: `JobKind`."""
