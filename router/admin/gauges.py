"""What is true right now, told to Prometheus at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router import clock, logs
from router.house import House
from router.tiers.breaker import State
from router.tiers.standing import Standing

_LABELS = ("tier", "backend")


class Gauges(Collector):
    """Backends and spool. The queue, which is asked over an await, is noted by `note_queue` before the scrape."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._waiting = 0

    def note_queue(self, waiting: int) -> None:
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        now, standings = clock.now(), self._house.fleet.standings()
        yield self._each("router_backend_in_flight", "Renders in flight.", {s: s.in_flight for s in standings})
        yield self._each("router_backend_slots", "Renders it takes at once.", {s: s.health.slots for s in standings})
        left = {s: left for s in standings if (left := s.quota.left_s(now)) is not None}
        yield self._each("router_backend_quota_left_seconds", "Seconds of its device that may be used.", left)
        yield self._states(standings, now)
        usage = self._house.spool.usage()
        yield GaugeMetricFamily("router_spool_used_bytes", "Encrypted audio held or promised.", usage.reserved_bytes)
        yield GaugeMetricFamily("router_spool_quota_bytes", "Room for encrypted audio.", usage.quota_bytes)
        yield GaugeMetricFamily("router_spool_oldest_seconds", "Age of the oldest file.", usage.oldest_s or 0)
        yield GaugeMetricFamily("router_queue_jobs", "Jobs in line that nobody works on.", self._waiting)
        yield CounterMetricFamily("router_log_dropped", "Log fields that were not on the list.", logs.dropped)

    def _states(self, standings: list[Standing], now: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "router_backend_state", "1 for the state a backend is in.", labels=(*_LABELS, "state")
        )
        for standing in standings:
            is_in = standing.state(now)
            for state in State:
                labels = (standing.backend.tier, standing.backend.name, state.value)
                family.add_metric(labels, float(state is is_in))
        return family

    def _each(self, name: str, text: str, values: dict[Standing, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=_LABELS)
        for standing, value in values.items():
            family.add_metric((standing.backend.tier, standing.backend.name), value)
        return family
