"""The tier port: the interface that the dispatcher has to every machine that can make a master.

Narrow port, thick caller: an adapter probes, runs, stops when it is closed, and translates what goes wrong into
`faults.TierFault`. Retries, deadlines, breakers and logs live in the dispatcher.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from mastering.contract import Facts, JobOptions
from router.core.buffers import BodySource, ReadBuffer
from router.tiers.policy.backend_state import BackendState


class BackendHealth(NamedTuple):
    """A backend's answer to one probe."""

    up: bool
    detail: str
    slots: int = 1
    """How many renders it runs at once, the running ones included."""
    engine_version: str | None = None
    device: str | None = None
    sandbox_gaps: tuple[str, ...] | None = None
    """What its sandbox does not refuse a rendering process and should; None where it does not say."""
    reported_state: BackendState | None = None
    """Where it is not up and not failing either: warming, sleeping, paused or draining, as it reports itself."""
    free: int | None = None
    """How many of the slots are free; None where it does not say."""
    max_bytes: int | None = None
    max_duration_s: float | None = None
    """The largest file and the longest song that it takes; None where it does not say."""
    kinds: Mapping[str, Mapping[str, str]] | None = None
    """Kinds of jobs that it does → models that it has for each → their digests; None where it does not say."""
    paces: Mapping[str, frozenset[str]] | None = None
    """Kinds of jobs → which of their paces it can do; None where it does not say."""
    quota_left_s: float | None = None
    quota_resets_in_s: float | None = None
    """What its provider reports as left of its quota, in seconds of its device, and when the next period begins."""


class AudioSource(NamedTuple):
    """One audio file and two ways to read it from its start, each as often as need be.

    `open` gives an iterator of chunks for the event loop, `open_reader` a buffer that a thread reads without a copy.
    """

    size_bytes: int
    open: Callable[[], AsyncIterator[bytes]]
    open_reader: Callable[[], AbstractContextManager[ReadBuffer]]


class Work(NamedTuple):
    """What one attempt is to do. The backend learns kind, options and audio, and nothing of the person or the job."""

    options: JobOptions
    facts: Facts
    audio: AudioSource
    deadline_s: float
    """Seconds until the caller gives the attempt up."""
    references: tuple[AudioSource, ...] = ()
    """Recordings that the options refer to: what a master should sound like."""
    kind: str = "master"

    @property
    def upload_bytes(self) -> int:
        return self.audio.size_bytes + sum(reference.size_bytes for reference in self.references)


class Accepted(NamedTuple):
    """The backend has all of the audio and begins to render; `device` is what it renders on."""

    device: str


class Heartbeat(NamedTuple):
    """The process that renders is alive; says nothing of progress."""


class RenderProgress(NamedTuple):
    """The work is at `stage`, by its kind's words, and `fraction` of the whole is done, 0 to 1."""

    stage: str
    fraction: float


class OutputStarted(NamedTuple):
    """An output of `size_bytes` follows: as bytes events or, if set, as `body`, to be read before the next event."""

    name: str
    """By the job's kind: wav24, midi …"""
    size_bytes: int
    body: BodySource | None = None


class Finished(NamedTuple):
    """Every output has been sent in full."""

    report: dict[str, Any] | None
    """By the kind's own record; None from a backend that makes masters without a report."""


TierEvent = Accepted | Heartbeat | RenderProgress | OutputStarted | bytes | Finished
"""What an adapter yields while it renders; `bytes` are of the output that has started."""


class Backend(Protocol):
    """One machine, or one Space, of a tier."""

    name: str
    tier: str
    silence_s: float
    """An attempt is given up when so long no event came."""

    async def probe(self) -> BackendHealth:
        """Ask the backend for its health. One that is down is an answer, not an exception."""
        ...

    async def wake(self) -> None:
        """Start waking a sleeping backend. Returns at once and never raises: the next probes tell the result."""
        ...

    def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        """Render; the last event is Finished. Raises TierFault. Closing the generator stops the render."""
        ...

    async def close(self) -> None:
        """Close its connections and end what it still does."""
        ...
