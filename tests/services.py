"""Whole routers for tests, built of the real rooms, with scripted backends and a probe that believes what it is told.

async with working(tmp_path, [FakeBackend("a", [mastering()])]) as house:
    job = await queue_song(house)
    job = await until(house, job.id, State.MASTERED)
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from mastering.contract import (
    BandLevel,
    Facts,
    Fault,
    FaultCode,
    LimiterParameters,
    LimiterStep,
    Measurements,
    OutputFormat,
    Plan,
    Report,
    Stage,
)
from mastering.contract import Settings as MasterSettings
from mastering.contract.kinds import ExpectedOutput
from router.core import clock
from router.core.settings import RouterSettings
from router.dispatch.dispatcher import Dispatcher
from router.identity.accounts import open_accounts
from router.jobs import intake
from router.jobs.services import Services
from router.probe.client import Probe
from router.spool.disk import Spool
from router.store.embedded import sqlite
from router.store.port import Owner
from router.store.record import THIS_ROUTER, BlobRef, Job, new_id
from router.store.state import JobState
from router.tiers.fake import ScriptStep
from router.tiers.fleet.fleet import Fleet
from router.tiers.port import Accepted, Backend, Finished, OutputStarted, RenderProgress

SONG = b"a song, as far as the believing probe can tell " * 400
MASTER = b"its master " * 3000
FACTS = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=441_000, duration_s=10.0, lossy=False)
PATIENCE_S = 20.0
"""How long a test waits for what must come; only a failure waits so long."""


class BelievingProbe(Probe):
    """Reads every byte as the real probe does, then says `facts`, or raises the fault that the song's text names."""

    def __init__(self, **_: Any) -> None:
        self.facts = FACTS
        self.verify_faults: list[Fault] = []
        """Raised by the next verifications, one each."""
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.accounts: list[str] = []
        """Whose place each probe and each tap asked for."""

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    async def probe(self, feed: AsyncIterable[bytes], *, account: str = "", **_: Any) -> Facts:
        self.accounts.append(account)
        song = b"".join([chunk async for chunk in feed])
        await self.may_go_on.wait()
        if not song:
            raise Fault(FaultCode.EMPTY_FILE, "The file is empty. Choose another one.")
        if song.startswith(b"fault:"):
            raise Fault(FaultCode(song.removeprefix(b"fault:").decode()), "The file is as bad as it says.")
        return self.facts

    sandbox_gaps: tuple[str, ...] | None = ()

    def tap_song(self, size: int | None, *, account: str = "") -> None:
        self.accounts.append(account)

    def tap_output(self, *_: Any, **__: Any) -> None:
        return

    async def verify(
        self, feed: AsyncIterable[bytes], expected: ExpectedOutput, *, size_bytes: int | None = None, **_: Any
    ) -> Any:
        size = sum([len(chunk) async for chunk in feed])
        if self.verify_faults:
            raise self.verify_faults.pop(0)
        if size != size_bytes:
            raise Fault(FaultCode.BAD_MASTER, "The master is not as long as it says.")


def ram_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder on RAM-backed storage where the machine has it."""
    shm = "/dev/shm"  # noqa: S108 — the folder made in it is random and 0700
    return tempfile.TemporaryDirectory(prefix="mastering-test-", dir=shm if os.access(shm, os.W_OK) else None)


def settings_for(folder: Path, ram: str, **changes: Any) -> RouterSettings:
    defaults: dict[str, Any] = {"ram_dir": Path(ram), "spool_dir": folder / "spool", "state_dir": folder / "state"}
    defaults["ram_check"] = "warn"
    return RouterSettings(**{**defaults, **changes})


@asynccontextmanager
async def services_in(folder: Path, backends: Sequence[Backend] = (), **settings: Any) -> AsyncIterator[Services]:
    """A house where nobody works yet. A second one on the same folders finds what the first one left."""
    ram = settings.pop("ram", None)
    with ram_folder() as own_ram:
        chosen = settings_for(folder, ram or own_ram, **settings)
        opened = sqlite.open_store(
            chosen.ram_dir / "jobs.sqlite",
            max_queued=chosen.max_queued_per_account,
            max_running=chosen.max_running_per_account,
        )
        spool = Spool(chosen.spool_dir, chosen.ram_dir / "keys", chosen.spool_quota_bytes)
        fleet = Fleet(backends)
        async with opened as store, open_accounts(chosen.state_dir) as accounts:
            services = Services(
                chosen,
                store.jobs,
                store.queue,
                store.events,
                spool,
                BelievingProbe(),
                fleet,
                accounts,
                b"s" * 32,
                Owner(THIS_ROUTER, new_id()),
            )
            try:
                yield services
            finally:
                await fleet.close()


@asynccontextmanager
async def working(folder: Path, backends: Sequence[Backend], **settings: Any) -> AsyncIterator[Services]:
    """A house whose dispatcher is at work."""
    async with services_in(folder, backends, **settings) as services:
        dispatcher = Dispatcher(services)
        await services.fleet.start()
        await dispatcher.start()
        try:
            yield services
        finally:
            await dispatcher.close()


def probe_of(services: Services) -> BelievingProbe:
    return cast("BelievingProbe", services.probe)


async def pieces(data: bytes, size: int = 7000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def new_job(services: Services, **changes: Any) -> Job:
    now = clock.now()
    lifetime_s = services.settings.output_ttl_s
    fields = {
        "id": new_id(),
        "account": "a",
        "options": MasterSettings().model_dump(mode="json"),
        "created_s": now,
        "expires_s": now + lifetime_s,
    }
    return Job(**{**fields, **changes})


async def receive_song(services: Services, song: bytes = SONG, **changes: Any) -> Job:
    """A job whose upload has arrived in full, not yet looked at."""
    job = new_job(services, **changes)
    ref = await services.spool.reserve(len(song), job.expires_s)
    await services.spool.append(ref, 0, pieces(song), len(song))
    job = job.with_(input=BlobRef(ref=ref, size_bytes=len(song)), size_bytes=len(song))
    await services.jobs.create(job, 3600)
    return job


async def spool_song(services: Services, song: bytes = SONG, **changes: Any) -> Job:
    job = await receive_song(services, song, **changes)
    return await services.change(job.id, lambda job: job.to(JobState.SPOOLED))


async def queue_song(services: Services, song: bytes = SONG, **changes: Any) -> Job:
    return await intake.probe_and_enqueue(services, (await spool_song(services, song, **changes)).id)


async def until(services: Services, job_id: str, *states: JobState) -> Job:
    """The job as soon as it is in one of `states`."""
    try:
        async with asyncio.timeout(PATIENCE_S), services.events.subscribe(job_id) as changes:
            while True:
                job, _ = await services.jobs.get(job_id)
                if job.state in states:
                    return job
                await changes.wait(PATIENCE_S)
    except TimeoutError:
        job, _ = await services.jobs.get(job_id)
        raise AssertionError(f"the job is {job.state}, not {states}; attempts: {job.attempts}") from None


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as the condition holds, for what gives no hint of its change."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 — bounded
            await asyncio.sleep(0.002)


async def read_all(services: Services, ref: str) -> bytes:
    return b"".join([chunk async for chunk in services.spool.read(ref)])


def mastering(master: bytes = MASTER, *formats: OutputFormat, before: Sequence[ScriptStep] = ()) -> list[ScriptStep]:
    """The script of a render that goes well, after the steps of `before`."""
    steps: list[ScriptStep] = [Accepted("scripted"), RenderProgress(Stage.RENDER, 0.5), *before]
    for output_format in formats or (OutputFormat.WAV24,):
        steps += [OutputStarted(output_format, len(master)), master[:1000], master[1000:]]
    return [*steps, Finished(report())]


def report() -> dict[str, Any]:
    """A report on a master, as JSON."""
    made = Report(engine_version="0.1.0", before=_measured(-20.0), after=_measured(-14.0), plan=_plan())
    return made.model_dump(mode="json")


def _measured(integrated_lufs: float) -> Measurements:
    return Measurements(
        rate_hz=44_100,
        channels=2,
        frames=441_000,
        duration_s=10.0,
        integrated_lufs=integrated_lufs,
        max_momentary_lufs=integrated_lufs + 4,
        max_short_term_lufs=integrated_lufs + 2,
        loudness_range_lu=6.0,
        true_peak_dbtp=-1.0,
        sample_peak_dbfs=-1.2,
        crest_db=12.0,
        peak_to_loudness_lu=13.0,
        correlation=0.8,
        width_db=-12.0,
        dc_offset=0.0,
        clipped_samples=0,
        spectrum=(BandLevel(centre_hz=1000.0, mid_db=-20.0, side_db=-30.0),),
    )


def _plan() -> Plan:
    limiter = LimiterParameters(
        ceiling_dbtp=-1.0,
        lookahead_ms=1.0,
        release_db_per_s=120.0,
        hold_ms=12.0,
        event_ms=60.0,
        event_release_db_per_s=2000.0,
        event_rest_db=6.0,
        peak_floor=0.25,
    )
    step = LimiterStep(parameters=limiter, reason="The target's ceiling.")
    return Plan(
        engine_version="0.1.0",
        settings=MasterSettings(),
        rate_hz=44_100,
        loudness_lufs=-14.0,
        ceiling_dbtp=-1.0,
        steps=(step,),
        seed=1,
    )
