"""The three tiers: order of preference, titles for people, and the times assumed before anything was measured."""

from __future__ import annotations

from router.tiers.policy.estimate import Ewma, SpeedEstimate

TIER_ORDER = ("managed", "gpu_space", "cpu_space")
"""The most preferred first: machines of our own before other people's, GPUs before CPUs."""
TIER_TITLES = {
    "managed": "Managed GPU workers",
    "gpu_space": "Hugging Face GPU Space",
    "cpu_space": "Hugging Face CPU Space",
}
"""What people read of each tier, by its name in settings and records."""


def _prior(
    upload_mib_per_s: float, render_s_per_minute: float, fit_s_per_minute: float, fetch_s: float, cold_start_s: float
) -> SpeedEstimate:
    render, fit = Ewma(render_s_per_minute), Ewma(fit_s_per_minute)
    return SpeedEstimate(Ewma(1 / upload_mib_per_s), render, Ewma(fetch_s), Ewma(cold_start_s), fit)


PRIORS = {
    "managed": _prior(50, 4, 12, 0.5, 10),
    "gpu_space": _prior(8, 6, 14, 3, 60),
    "cpu_space": _prior(8, 25, 60, 3, 90),
}
"""What is assumed of a tier before its first job; some jobs later it no longer matters."""
