"""Does to processes, disk and clock what the schedule says, and keeps its own record of what was done when.

Called on the event loop of the main thread: the kernel kills a child when the thread that started it ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mastering.runtime import child_process
from ops.chaos.proxy import FaultProxy, Record, strike_next
from ops.chaos.schedule import MACHINE, ON_CONNECTION, SPACES, WORKERS, FaultKind, PlannedFault
from ops.chaos.verdict import Outage
from ops.topology import SHM, Topology, TopologyProcess

SPOOL_MIB = 384
"""Of the disk that gets full: room for what a round has at once, and a moment's work to fill."""
_AIM_S = 4.0
"""So long a fault waits until its target has a song that nothing has struck yet; then it strikes whatever is there."""
_SPARE_S = 10.0
"""So long it waits while the target has one that was struck before: a second one would stop that song by design."""
_DRAIN_S = 20.0
_MEET_S = 10.0
"""So long a fault on a connection then waits for one with a song at any backend of the tier."""
_LIBRARIES = ("lib/*/faketime", "lib/faketime", "lib64/faketime", "local/lib/faketime")
"""Under /usr, where distributions put libfaketime."""


class Clocks:
    """The wall clocks of the router and the workers, by libfaketime, which reads a file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._began_s = folder, time.time()
        found = [path for folder in _LIBRARIES for path in sorted(Path("/usr").glob(f"{folder}/libfaketime.so.1"))]
        self._library = found[0] if found else None

    @property
    def can_jump(self) -> bool:
        return self._library is not None

    def environment(self, process: str) -> dict[str, str]:
        """What a process needs to have its clock; nothing where it can't have one."""
        if self._library is None:
            return {}
        self.set(process, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(process)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, process: str, ahead_s: int) -> None:
        """Put the process's clock ahead by so much, within a second."""
        part = self._file(process).with_suffix(".part")
        part.write_text(f"{ahead_s:+d}", "ascii")
        part.replace(self._file(process))

    def remove_remains(self) -> None:
        """Remove what libfaketime left in shared memory of processes that were killed during this run."""
        for path in (*SHM.glob("faketime_shm_*"), *SHM.glob("sem.faketime_sem_*")):
            is_alive = Path("/proc", path.name.rpartition("_")[2]).exists()
            with suppress(OSError):
                if not is_alive and path.stat().st_mtime >= self._began_s - 1:
                    path.unlink()

    def _file(self, process: str) -> Path:
        return self._folder / f"clock-{process}"


class SmallDisk:
    """A small disk of its own under the spool's folder, seen by this run's router alone.

    It is mounted in a mount namespace, which a child of this process keeps: nothing is left of it when that ends.
    """

    def __init__(self, keeper: subprocess.Popen[bytes] | None, spool: Path) -> None:
        self._keeper, self._spool = keeper, spool

    @property
    def can_be_full(self) -> bool:
        return self._keeper is not None

    def seen_by(self, command: Sequence[str]) -> tuple[str, ...]:
        """The command, such that its process sees the disk."""
        if self._keeper is None:
            return tuple(command)
        return ("nsenter", "--mount", f"--target={self._keeper.pid}", "--", *command)

    def fill(self) -> None:
        """Take all the room that is left, but for some pages."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            for _ in range(SPOOL_MIB):
                filler.write(bytes(1 << 20))

    def free(self) -> None:
        with suppress(OSError):
            self._filler.unlink()

    @property
    def _filler(self) -> Path:
        assert self._keeper is not None  # noqa: S101
        return Path(f"/proc/{self._keeper.pid}/root{self._spool}/filler")


@contextmanager
def small_disk(spool: Path) -> Iterator[SmallDisk]:
    """The disk, where this process may mount one; else one that can't be full."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0 or any(shutil.which(name) is None for name in ("unshare", "nsenter", "mount")):
        yield SmallDisk(None, spool)
        return
    script = 'mount -t tmpfs -o size="$1"m,mode=700 chaos-spool "$2" && echo ready && exec sleep infinity'
    command = ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", str(SPOOL_MIB), str(spool))
    keeper = child_process.start_blocking(command, child_process.environment(), stdout=child_process.PIPE)
    try:
        assert keeper.stdout is not None  # noqa: S101
        yield SmallDisk(keeper if keeper.stdout.readline() == b"ready\n" else None, spool)
    finally:
        keeper.kill()
        keeper.wait()


class Faults:
    """Strikes as the schedule says. `outages` is what was done, `skipped` what could not be."""

    def __init__(
        self, topology: Topology, proxies: Mapping[str, FaultProxy], record: Record, clocks: Clocks, disk: SmallDisk
    ) -> None:
        self._topology, self._proxies, self._record = topology, proxies, record
        self._clocks, self._disk = clocks, disk
        self._backends = {child.name: child for child in topology.backends}
        self._busy: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in (*self._backends, MACHINE)}
        self._breaking = asyncio.Lock()
        self.outages: list[Outage] = []
        self.skipped: list[str] = []
        self.died: list[str] = []
        """Processes that ended though nobody struck them."""

    async def strike(self, fault: PlannedFault) -> None:
        """Do the fault, once those before on the same target are over, and undo it. Raises RuntimeError where a process
        does not come back."""
        await asyncio.sleep(fault.delay_s)
        if fault.kind in ON_CONNECTION:
            return await self._break_connection(fault)
        targets = self._targets(fault)
        for name in targets:
            await self._busy[name].acquire()
        try:
            await self._strike(fault, targets)
        finally:
            for name in targets:
                self._busy[name].release()

    async def all_well(self) -> None:
        """Until every process answers; one that has ended by itself is noted and started again. Raises RuntimeError."""
        for child in (*self._topology.backends, self._topology.router):
            if not child.is_alive:
                self.died.append(child.name)
                child.start()
            await asyncio.to_thread(child.wait)

    def _targets(self, fault: PlannedFault) -> list[str]:
        """In one order, so that two faults never wait for one another."""
        return sorted(WORKERS) if fault.kind is FaultKind.TIER_KILL else [fault.target]

    async def _strike(self, fault: PlannedFault, targets: list[str]) -> None:
        match fault.kind:
            case FaultKind.ROUTER_KILL:
                await self._kill_router(fault)
            case FaultKind.FULL_DISK:
                await self._fill_disk(fault)
            case FaultKind.CLOCK_JUMP:
                await self._jump(fault)
            case FaultKind.BLACK_HOLE:
                await self._aim(targets)
                with self._outage(fault.kind, targets):
                    await self._proxies[fault.target].black_hole(fault.lasts_s)
            case _:
                await self._signal(fault, targets)

    async def _kill_router(self, fault: PlannedFault) -> None:
        with self._outage(fault.kind, ()):
            for name in self._backends:
                self._record.strike_all(name, fault.kind)
            self._topology.router.kill()
            await asyncio.sleep(fault.lasts_s)
            self._topology.router.start()
            await asyncio.to_thread(self._topology.router.wait)

    async def _fill_disk(self, fault: PlannedFault) -> None:
        if not self._disk.can_be_full:
            return self.skipped.append(fault.kind.value)
        with self._outage(fault.kind, ()):
            await asyncio.to_thread(self._disk.fill)
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                self._disk.free()

    async def _jump(self, fault: PlannedFault) -> None:
        if not self._clocks.can_jump:
            return self.skipped.append(fault.kind.value)
        # The workers refuse what the router signs while their clocks differ.
        is_router = fault.target == MACHINE
        with self._outage(fault.kind, WORKERS if is_router else [fault.target]):
            name = "router" if is_router else fault.target
            self._clocks.set(name, fault.jump_s)
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                self._clocks.set(name, 0)
            await asyncio.sleep(1.0)  # until libfaketime looks again

    async def _break_connection(self, fault: PlannedFault) -> None:
        tier = [self._proxies[name] for name in (WORKERS if fault.target in WORKERS else SPACES)]
        async with self._breaking:
            strike = await strike_next([self._proxies[fault.target]], fault, _AIM_S)
            strike = strike or await strike_next(tier, fault, _MEET_S)
        if strike is None:
            return self.skipped.append(f"{fault.kind.value}: no song came")
        await asyncio.sleep(fault.lasts_s)
        self.outages.append(Outage(fault.kind, frozenset({strike.backend}), strike.at_s, strike.at_s + fault.lasts_s))

    async def _signal(self, fault: PlannedFault, targets: list[str]) -> None:
        await self._aim(targets)
        children = [self._backends[name] for name in targets]
        with self._outage(fault.kind, targets):
            for child in children:
                self._record.strike_all(child.name, fault.kind)
                self._proxies[child.name].outage = fault.kind
                _send(child, fault.kind)
            if fault.kind is FaultKind.SIGTERM:
                await _until(lambda: not children[0].is_alive, _DRAIN_S)
                children[0].kill()
            await asyncio.sleep(fault.lasts_s)
            for child in children:
                if fault.kind is FaultKind.SIGSTOP:
                    _send(child, None)
                else:
                    child.start()
            await asyncio.gather(*(asyncio.to_thread(child.wait) for child in children))
            for child in children:
                self._proxies[child.name].outage = None

    async def _aim(self, targets: list[str]) -> None:
        """Wait until a song is there, and none that was struck before."""

        def songs() -> set[int]:
            return {song for name in targets for song in self._record.songs_at(name)}

        await _until(lambda: bool(songs()) and not songs() & self._record.struck(), _AIM_S)
        await _until(lambda: not songs() & self._record.struck(), _SPARE_S)

    @contextmanager
    def _outage(self, kind: FaultKind, backends: Sequence[str]) -> Iterator[None]:
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.outages.append(Outage(kind, frozenset(backends), began_s, time.monotonic()))


async def _until(holds: Callable[[], bool], limit_s: float) -> None:
    """Return as soon as it holds, or when the time is over."""
    give_up_s = time.monotonic() + limit_s
    while not holds() and time.monotonic() < give_up_s:  # noqa: ASYNC110 — bounded
        await asyncio.sleep(0.005)


def _send(child: TopologyProcess, kind: FaultKind | None) -> None:
    """The signal of a fault; of none: SIGCONT."""
    signals = {FaultKind.SIGSTOP: signal.SIGSTOP, FaultKind.SIGTERM: signal.SIGTERM, None: signal.SIGCONT}
    if child.process is None:
        return
    if kind in signals:
        child.process.send_signal(signals[kind])
    else:
        child.kill()
