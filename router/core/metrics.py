"""What the router counts, for Prometheus: base units and bounded labels, never an account."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one router, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._attempts = Counter(
            "router_attempts", "Attempts that ended, by how.", ["tier", "outcome"], registry=self._registry
        )
        self._attempt_seconds = Histogram(
            "router_attempt_duration_seconds",
            "Time an attempt held its backend.",
            ["tier"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._failovers = Counter(
            "router_failovers", "Attempts that began after another had failed.", ["tier"], registry=self._registry
        )
        self._jobs = Counter(
            "router_jobs", "Jobs that ended, by kind and how.", ["kind", "outcome"], registry=self._registry
        )
        self._job_seconds = Histogram(
            "router_job_duration_seconds",
            "Time from a job's making to its end.",
            ["kind"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._shed = Counter(
            "router_jobs_shed", "Jobs refused before they began, by why.", ["code"], registry=self._registry
        )

    def watch(self, collector: Collector) -> None:
        """Ask `collector` too at each scrape: for gauges, which are read and not counted."""
        self._registry.register(collector)

    def attempt_ended(self, tier: str, outcome: str, seconds: float) -> None:
        self._attempts.labels(tier, outcome).inc()
        self._attempt_seconds.labels(tier).observe(seconds)

    def failover(self, tier: str) -> None:
        self._failovers.labels(tier).inc()

    def job_ended(self, kind: str, outcome: str, seconds: float) -> None:
        self._jobs.labels(kind, outcome).inc()
        self._job_seconds.labels(kind).observe(seconds)

    def shed(self, code: str) -> None:
        """A job was refused with this error code because too much waits already."""
        self._shed.labels(code).inc()

    def described(self) -> dict[str, str]:
        """Name → meaning of the router's own counters, as they are scraped."""
        ours = [family for family in self._registry.collect() if family.name.startswith("router_")]
        suffix = {"counter": "_total"}
        return {family.name + suffix.get(family.type, ""): family.documentation for family in ours}

    def page(self) -> bytes:
        """The exposition, as a scrape reads it."""
        return generate_latest(self._registry)
