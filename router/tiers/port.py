"""The tier port: what the dispatcher asks of any machine that can make a master.

Narrow port, thick caller: an adapter probes, runs, stops when it is closed, and translates what goes wrong into
`faults.TierFault`. Retries, deadlines, breakers and logs live in the dispatcher.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from mastering.contract import Facts, OutputFormat, Report, Settings, Stage
from router.core.buffers import BodySource, ReadBuffer
from router.tiers.policy.backend_state import BackendState


class BackendHealth(NamedTuple):
    """One answer of a backend about itself."""

    up: bool
    detail: str
    slots: int = 1
    """Renders at once, busy ones included."""
    engine_version: str | None = None
    device: str | None = None
    resting: BackendState | None = None
    """Not up, yet not failing either: warming, sleeping, paused, or draining by its own word."""
    free: int | None = None
    """Of the slots, where it says so."""
    max_bytes: int | None = None
    max_duration_s: float | None = None
    """What it takes at most, by its own word."""
    quota_left_s: float | None = None
    quota_resets_in_s: float | None = None
    """What its provider says is left of its quota, in seconds of its device, and when that starts anew."""


class Source(NamedTuple):
    """A stretch of audio and how to read it from its start, as often as need be: on the loop, or in a thread."""

    size_bytes: int
    open: Callable[[], AsyncIterator[bytes]]
    open_reader: Callable[[], AbstractContextManager[ReadBuffer]]


class Work(NamedTuple):
    """One attempt's work. The backend learns the settings and the audio, and nothing of whose they are."""

    settings: Settings
    facts: Facts
    audio: Source
    deadline_s: float
    """Seconds until the caller gives the attempt up."""
    references: tuple[Source, ...] = ()
    """Recordings that the master should sound like."""

    @property
    def upload_bytes(self) -> int:
        return self.audio.size_bytes + sum(reference.size_bytes for reference in self.references)


class Accepted(NamedTuple):
    """The backend has the audio and works on it."""

    device: str


class Alive(NamedTuple):
    """A sign of life from the process that renders."""


class Working(NamedTuple):
    stage: Stage
    fraction: float


class OutputBegins(NamedTuple):
    """`size_bytes` follow: as bytes events or, where there is one, as `body`, to be taken before the next event."""

    format: OutputFormat
    size_bytes: int
    body: BodySource | None = None


class Finished(NamedTuple):
    """Every output has come, as it was sent."""

    report: Report | None
    """None from a backend that makes masters and does not say how."""


Event = Accepted | Alive | Working | OutputBegins | bytes | Finished


class Backend(Protocol):
    """One machine, or one Space, of a tier."""

    name: str
    tier: str
    silence_s: float
    """So long without a sign of life, and the attempt is given up."""

    async def probe(self) -> BackendHealth:
        """Ask how it is. Never raises for a backend that is down: that is an answer."""
        ...

    async def wake(self) -> None:
        """Ask a sleeping backend to get up. Returns soon, and never raises: the next probes tell."""
        ...

    def run(self, work: Work) -> AsyncGenerator[Event]:
        """Do the work; ends after Finished. Raises TierFault. Closing the generator frees the backend."""
        ...

    async def close(self) -> None: ...
