"""Watches one attempt's events: ends it when its backend falls silent or its render stalls, and times its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from router.core import clock
from router.dispatch.stall import StallDetector
from router.tiers.policy.estimate import AttemptTiming
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import OutputStarted, RenderProgress, TierEvent

SLOWEST_UPLOAD_BYTES_PER_S = 256 * 1024
"""A backend may say nothing while the song is sent; an upload slower than this (2 Mbit/s) counts as silence."""


class Watchdog:
    """Of one attempt, from its start. `silence_s` is how long the backend may send nothing at all."""

    def __init__(self, silence_s: float, upload_bytes: int, expected_render_s: float) -> None:
        self._silence_s = silence_s
        self._upload_s = upload_bytes / SLOWEST_UPLOAD_BYTES_PER_S
        self._expected_s = expected_render_s
        self._stall: StallDetector | None = None
        self._marks_s = [clock.now()]
        """When the attempt began, was accepted, and its first output began."""

    async def watched(self, events: AsyncGenerator[TierEvent]) -> AsyncGenerator[TierEvent]:
        """The same events. Raises TierFault when the backend is silent for too long, or its render stalls.

        One timeout serves all the waits (decision 0009). It runs only while an event is awaited: the time that the
        caller takes over an event is not the backend's silence.
        """
        loop, limit_s = asyncio.get_running_loop(), self._silence_s + self._upload_s
        try:
            async with asyncio.timeout(None) as silence:
                while True:
                    silence.reschedule(loop.time() + limit_s)
                    event = await anext(events)
                    if silence.expired():  # the event came with the end, or `events` made one of the cancellation
                        break
                    silence.reschedule(None)
                    limit_s = self._silence_s
                    self._check(event)
                    yield event
        except StopAsyncIteration:
            return
        except TimeoutError:
            pass
        raise TierFault(FaultClass.CRASH, "the backend fell silent")

    def timing(self) -> AttemptTiming:
        """How long upload, render and fetch took; to be called when the last byte has come."""
        if len(self._marks_s) < 3:
            return AttemptTiming()
        began_s, accepted_s, output_s = self._marks_s
        return AttemptTiming(accepted_s - began_s, output_s - accepted_s, clock.now() - output_s)

    def _check(self, event: TierEvent) -> None:
        """Note what the event says of the attempt's course. Raises TierFault when the render stalls."""
        now_s = clock.now()
        if len(self._marks_s) == 1:
            self._marks_s.append(now_s)
            self._stall = StallDetector(now_s, self._expected_s)
        if isinstance(event, OutputStarted) and self._stall is not None:
            self._marks_s.append(now_s)
            self._stall = None
        if self._stall is None:
            return
        if isinstance(event, RenderProgress):
            self._stall.progressed(now_s, event.fraction)
        if self._stall.is_stalled(now_s):
            raise TierFault(FaultClass.CRASH, f"the render got nowhere for {self._stall.allowed_s():.0f} s")
