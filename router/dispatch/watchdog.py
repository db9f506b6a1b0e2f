"""An eye on one attempt's events as they pass: is the backend silent, does it stall, how long does each part take."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from router.core import clock
from router.dispatch.patience import Patience
from router.dispatch.stall import StallDetector
from router.tiers.policy.estimate import Timing
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Event, OutputBegins, Working

SLOWEST_UPLOAD_BYTES_PER_S = 256 * 1024


class Watchdog:
    def __init__(self, silence_s: float, upload_bytes: int, expected_render_s: float) -> None:
        self._silence_s = silence_s
        self._upload_s = upload_bytes / SLOWEST_UPLOAD_BYTES_PER_S
        self._expected_s = expected_render_s
        self._stall: StallDetector | None = None
        self._marks = [clock.now()]
        """When it began, was accepted, began to send the master."""

    async def over(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """The same events. Raises TierFault when the backend says nothing for too long, or gets nowhere."""
        allowed_s = self._silence_s + self._upload_s
        patience = Patience()
        try:
            while True:
                event = await patience.wait(anext(events), allowed_s)
                allowed_s = self._silence_s
                self._look(event)
                yield event
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TierFault(FaultClass.CRASH, "the backend fell silent") from None
        finally:
            patience.close()

    def timing(self) -> Timing:
        """How long the parts took; call it when the last byte has come."""
        if len(self._marks) < 3:
            return Timing()
        began_s, accepted_s, output_s = self._marks
        return Timing(accepted_s - began_s, output_s - accepted_s, clock.now() - output_s)

    def _look(self, event: Event) -> None:
        now = clock.now()
        if len(self._marks) == 1:
            self._marks.append(now)
            self._stall = StallDetector(now, self._expected_s)
        if isinstance(event, OutputBegins) and self._stall is not None:
            self._marks.append(now) if len(self._marks) == 2 else None
            self._stall = None
        if self._stall is None:
            return
        if isinstance(event, Working):
            self._stall.progressed(now, event.fraction)
        if self._stall.is_stalled(now):
            raise TierFault(FaultClass.CRASH, f"the render got nowhere for {self._stall.allowed_s():.0f} s")
