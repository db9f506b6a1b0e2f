"""Prometheus metrics that are read at each scrape: backends, spool and queue as they are at that moment."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.core import clock, event_log
from router.core.threads import POOLS
from router.http.connection import RouterConnection
from router.jobs.services import Services
from router.tiers.fleet.member import FleetMember
from router.tiers.policy.backend_state import BackendState

_LABELS = ("tier", "backend")
HELP = {
    "router_backend_in_flight": "Renders in flight.",
    "router_backend_slots": "Renders it takes at once.",
    "router_backend_quota_left_seconds": "Seconds of its device that may be used.",
    "router_backend_state": "1 for the state a backend is in.",
    "router_spool_used_bytes": "Encrypted audio held or promised.",
    "router_spool_quota_bytes": "Room for encrypted audio.",
    "router_spool_oldest_seconds": "Age of the oldest file.",
    "router_queue_jobs": "Jobs in line that nobody works on.",
    "router_threads": "Threads that a pool may have (ROUTER_BODY_THREADS, ROUTER_WORKER_THREADS).",
    "router_threads_unfinished_calls": "Calls that run in a pool's threads or wait for one.",
    "router_connections": "Connections that are open, on all ports.",
    "router_connections_closed_total": "Connections closed on their callers: slow_head, unread, evicted.",
    "router_log_dropped_total": "What was kept out of the log: fields not on the list, repetitions, words of children.",
}


class Gauges(Collector):
    """Gauges of backends, spool and thread pools, read at each scrape.

    The queue, which is asked over an await, is noted by `note_queue` before the scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting = 0

    def note_queue(self, waiting: int) -> None:
        """Set how many jobs wait in the queue."""
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        now, members = clock.now(), self._services.fleet.members()
        yield self._per_backend("router_backend_in_flight", {s: s.in_flight for s in members})
        yield self._per_backend("router_backend_slots", {s: s.health.slots for s in members})
        left = {s: left for s in members if (left := s.quota.left_s(now)) is not None}
        yield self._per_backend("router_backend_quota_left_seconds", left)
        yield self._state_metric(members, now)
        usage = self._services.spool.usage()
        yield _single_gauge("router_spool_used_bytes", usage.reserved_bytes)
        yield _single_gauge("router_spool_quota_bytes", usage.quota_bytes)
        yield _single_gauge("router_spool_oldest_seconds", usage.oldest_s or 0)
        yield _single_gauge("router_queue_jobs", self._waiting)
        yield _by_pool("router_threads", {pool.name: pool.threads for pool in POOLS})
        yield _by_pool("router_threads_unfinished_calls", {pool.name: pool.unfinished for pool in POOLS})
        yield _single_gauge("router_connections", RouterConnection.count_open())
        closed = CounterMetricFamily(
            "router_connections_closed", HELP["router_connections_closed_total"], labels=("outcome",)
        )
        for why, count in RouterConnection.closed.items():
            closed.add_metric((why,), count)
        yield closed
        yield CounterMetricFamily("router_log_dropped", HELP["router_log_dropped_total"], event_log.book.dropped)

    def _state_metric(self, members: list[FleetMember], now: float) -> GaugeMetricFamily:
        name = "router_backend_state"
        family = GaugeMetricFamily(name, HELP[name], labels=(*_LABELS, "state"))
        for member in members:
            current = member.state(now)
            for state in BackendState:
                labels = (member.backend.tier, member.backend.name, state.value)
                family.add_metric(labels, float(state is current))
        return family

    def _per_backend(self, name: str, values: dict[FleetMember, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, HELP[name], labels=_LABELS)
        for member, value in values.items():
            family.add_metric((member.backend.tier, member.backend.name), value)
        return family


def _by_pool(name: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, HELP[name], labels=("pool",))
    for pool, value in values.items():
        family.add_metric((pool,), value)
    return family


def _single_gauge(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, HELP[name], value)
