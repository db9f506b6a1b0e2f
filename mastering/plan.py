"""Measurements + Settings → Plan: every parameter of the render, each with its reason. No audio passes through here."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from mastering.contract import ENGINE_VERSION, Measurements, Plan, PlanStep, Settings
from mastering.dsp.limiter import Limiter
from mastering.presets import presets


def loudness_lufs(settings: Settings) -> float:
    wished = settings.loudness_lufs
    return presets().targets[settings.target].loudness_lufs if wished is None else wished


def ceiling_dbtp(settings: Settings) -> float:
    wished = settings.ceiling_dbtp
    return presets().targets[settings.target].ceiling_dbtp if wished is None else wished


def tone_plan(measured: Measurements, settings: Settings) -> Plan:
    """What can be decided from the measurements alone: everything before the loudness."""
    return Plan(
        engine_version=ENGINE_VERSION,
        settings=settings,
        rate_hz=settings.rate_hz or measured.rate_hz,
        loudness_lufs=loudness_lufs(settings),
        ceiling_dbtp=ceiling_dbtp(settings),
        steps=(),
        seed=_seed(settings),
    )


def with_loudness(plan: Plan, limits: Limiter, gain_db: float, *, wished_lufs: float, reached_lufs: float) -> Plan:
    """The plan with the gain that the solver found, and the limiter that it was found for."""
    short = wished_lufs - reached_lufs > 0.05
    wish = (
        f", the most that the ceiling allows of the {wished_lufs:.1f} LUFS asked for." if short else ", as asked for."
    )
    loudness = PlanStep(
        name="loudness",
        parameters={"gain_db": gain_db},
        reason=f"{gain_db:+.2f} dB bring the limited song to {reached_lufs:.1f} LUFS{wish}.",
    )
    limiter = PlanStep(
        name="limiter",
        parameters=asdict(limits),
        reason=f"No true peak may pass {limits.ceiling_dbtp:.1f} dBTP. "
        "The release is the slowest that reaches the loudness without much drive.",
    )
    kept = tuple(step for step in plan.steps if step.name not in ("loudness", "limiter"))
    steps = (*kept, loudness, limiter)
    return plan.model_copy(update={"steps": steps, "loudness_lufs": reached_lufs if short else wished_lufs})


def _seed(settings: Settings) -> int:
    """From the settings alone: a seed from the audio would be a fingerprint of it."""
    digest = hashlib.sha256(settings.model_dump_json().encode()).digest()
    return int.from_bytes(digest[:4], "big")
