"""The three tiers: order of preference, titles for people, and the times assumed before anything was measured."""

from __future__ import annotations

from collections.abc import Iterable

from mastering.contract.kinds import job_kinds
from router.tiers.policy.estimate import Ewma, SpeedEstimate

TIER_ORDER = ("managed", "gpu_space", "cpu_space")
"""The most preferred first: machines of our own before other people's, GPUs before CPUs."""
TIER_TITLES = {
    "managed": "Managed workers",
    "gpu_space": "Hugging Face GPU Space",
    "cpu_space": "Hugging Face CPU Space",
}
"""What people read of each tier, by its name in settings and records, where its devices do not matter."""
_TITLES_ON_GPU = {"managed": "Managed GPU workers"}
_TITLES_ON_CPU = {"managed": "Managed CPU workers", "gpu_space": "Hugging Face Space without a GPU"}
CPU = "cpu"
"""The device that a backend names which has no GPU."""


def tier_title(tier: str, devices: Iterable[str | None]) -> str:
    """What people read of backends of a tier that said these devices; None for one that has said nothing yet."""
    found = set(devices)
    if found == {CPU}:
        return _TITLES_ON_CPU.get(tier, TIER_TITLES[tier])
    is_all_gpu = bool(found) and found.isdisjoint({CPU, None})
    return _TITLES_ON_GPU.get(tier, TIER_TITLES[tier]) if is_all_gpu else TIER_TITLES[tier]


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
