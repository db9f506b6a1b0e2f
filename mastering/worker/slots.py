"""Slots for renders: reserved before an upload, so that a busy worker costs no upload. Pure: time is passed in."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field

from mastering.contract import Fault, FaultCode


class Claim:
    """The slot of a running render; released once, however often it is asked."""

    def __init__(self, slots: RenderSlots) -> None:
        self._slots: RenderSlots | None = slots

    def release(self) -> None:
        if self._slots is not None:
            self._slots.give_back()
            self._slots = None


@dataclass
class RenderSlots:
    """`total` slots; each is free, reserved for `hold_s` seconds, or running. Times are monotonic seconds."""

    total: int
    hold_s: float
    is_draining: bool = False
    _reserved: dict[str, float] = field(default_factory=dict)
    """Token → the monotonic second at which the reservation lapses."""
    _running: int = 0

    def reserve(self, now: float) -> str:
        """A token for one render. Raises Fault(busy) with `retry_after_s`."""
        self._lapse(now)
        if self.is_draining:
            raise Fault(FaultCode.BUSY, "This worker is stopping. Ask another one.", retry_after_s=60)
        if self._running + len(self._reserved) >= self.total:
            retry_s = max(1, math.ceil(min(self._reserved.values(), default=now + 5) - now))
            running = f"{self._running} of {self.total} renders are running"
            raise Fault(FaultCode.BUSY, f"No slot is free: {running}. Ask again later.", retry_after_s=retry_s)
        token = secrets.token_urlsafe(16)
        self._reserved[token] = now + self.hold_s
        return token

    def claim(self, token: str, now: float) -> Claim:
        """Turn a reservation into a running render; each token once. Raises Fault(busy)."""
        self._lapse(now)
        if self._reserved.pop(token, None) is None:
            raise Fault(FaultCode.BUSY, "This slot is not reserved, or no longer. Ask for one first.", retry_after_s=1)
        self._running += 1
        return Claim(self)

    def give_back(self) -> None:
        self._running -= 1

    def counts(self, now: float) -> dict[str, int]:
        self._lapse(now)
        taken = self._running + len(self._reserved)
        return {
            "total": self.total,
            "running": self._running,
            "reserved": len(self._reserved),
            "free": 0 if self.is_draining else self.total - taken,
        }

    def _lapse(self, now: float) -> None:
        for token in [token for token, end in self._reserved.items() if end <= now]:
            del self._reserved[token]
