"""The router's end of the probe: asks a sandboxed process what untrusted bytes are, and whether a master holds.

The bytes go into the child's memory by a socket, or, while they are on their way anyhow, by a memory file that the
child shares (`Ear`): then the answer comes a moment after the last byte. The router holds one chunk of them at a time.
A memory file lives as long as the child or the `Ear`, in RAM, with no name; it counts as the probe's memory, not as
the router's. (Over 250 lines: asking and hearing are one protocol, and read worse apart; the process is `zygote`.)
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, NotRequired, TypedDict, TypeVar, Unpack

from pydantic import ValidationError

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES, Facts, Fault, FaultCode
from router.zygote import Lost, Zygote

_R = TypeVar("_R", bound=Facts)
_GRACE_S = 10.0
"""How long past a request's own time limit the zygote may take to say so."""
_BYTES_PER_S = 2_000_000
"""What a slow machine decodes of the densest codec."""
_MAX_ANSWER_BYTES = 64 * 1024
_EARLY_S = 20.0
"""A file that takes longer to arrive is not heard on its way: its place is for those that come quickly."""
_LARGEST_EARLY_BYTES = 128 * 1024 * 1024
_NEWS_BYTES = 4 * 1024 * 1024
"""How often a child hears how much has arrived."""
_COUNT = struct.Struct("!Q")
"""As `mastering.probe.arriving` reads it."""
_CURES = {
    "network namespace": "allow user namespaces, or run the router as root of its own container",
    "unprivileged user": "run the router as an unprivileged user",
    "Landlock": "use a kernel of 5.13 or later with Landlock switched on",
}
_TRIAL_CURE = "run on Linux on x86_64 or aarch64 with seccomp and Landlock allowed"


class Announced(TypedDict):
    """What a master must be. Its checksum is not among it: that guards the exchange in which it came."""

    frames: int
    rate_hz: int
    channels: int
    tolerance_frames: NotRequired[int]
    size: NotRequired[int]


class Verified(Facts):
    """Facts of a master that decodes to its end and is what was announced."""

    size: int
    sample_peak_dbfs: float


@dataclass(frozen=True)
class Layer:
    """One fence of the sandbox: whether it stands, and what to do where it does not."""

    name: str
    holds: bool
    cure: str = ""


class Probe:
    """Facts from untrusted bytes. All failures of a file are `Fault`; so is a probe that broke (internal)."""

    def __init__(
        self,
        *,
        concurrency: int = 2,
        timeout_s: float = 30.0,
        max_bytes: int = MAX_INPUT_BYTES,
        max_duration_s: float = MAX_DURATION_S,
    ) -> None:
        # Apart: strangers' slow files must not keep finished masters waiting.
        self._probes, self._checks = asyncio.Semaphore(concurrency), asyncio.Semaphore(concurrency)
        self._ears_left = {"probe": concurrency, "verify": concurrency}
        self._timeout_s = timeout_s
        self._limits = {"max_bytes": max_bytes, "max_duration_s": max_duration_s}
        self._zygote = Zygote()

    async def start(self) -> None:
        """Start the zygote if none runs, and wait until it listens. Raises Fault(internal)."""
        try:
            await self._zygote.open()
        except Lost:
            raise _broken() from None

    async def close(self) -> None:
        """End the zygote and its children."""
        await self._zygote.close()

    async def probe(self, feed: AsyncIterable[bytes], *, size: int = 0, timeout_s: float | None = None) -> Facts:
        """Facts of a recording of `size` bytes, decoded to its end. Raises Fault.

        A large file may take longer: ninety minutes of Opus (90 MB) decode in 10 to 25 s on one shared core. What the
        probe hears decides: past the ordinary limit it stops where too little sound comes out for the time.
        """
        answer = await self._ask(self._song(size, timeout_s or self._timeout_s), feed)
        return _record(Facts, answer)

    def hear_song(self, size: int | None) -> Ear[Facts] | None:
        """An ear for an upload of `size` bytes, from its first byte on; None where there is none to spare."""
        return self._hear(self._song(size or 0, self._timeout_s), Facts, size)

    async def verify(
        self, feed: AsyncIterable[bytes], *, timeout_s: float = 120.0, **announced: Unpack[Announced]
    ) -> Verified:
        """Facts of a master that must be as announced. Raises Fault (bad_master where it is another)."""
        return _record(Verified, await self._ask(_master(announced, timeout_s), feed))

    def hear_master(self, *, timeout_s: float = 120.0, **announced: Unpack[Announced]) -> Ear[Verified] | None:
        """An ear for a master as it arrives; None where there is none to spare."""
        return self._hear(_master(announced, timeout_s), Verified, announced.get("size"))

    async def selfcheck(self) -> tuple[Layer, ...]:
        """Which fences stand, tried from inside a child. Raises Fault(internal)."""
        trials = await self._ask({"op": "selfcheck"}, None)
        fences = [
            Layer(name, holds, "" if holds else _CURES.get(name, "")) for name, holds in self._zygote.fences.items()
        ]
        inside = [Layer(f"refused: {name}", bool(held), "" if held else _TRIAL_CURE) for name, held in trials.items()]
        return (*fences, *inside)

    def _song(self, size: int, patience_s: float) -> dict[str, Any]:
        limits = {"timeout_s": patience_s + size / _BYTES_PER_S, "patience_s": patience_s, **self._limits}
        return {"op": "probe", **limits}

    def _hear(self, request: dict[str, Any], kind: type[_R], size: int | None) -> Ear[_R] | None:
        op = request["op"]
        if not size or size > _LARGEST_EARLY_BYTES or not self._ears_left[op]:
            return None
        arriving = {**request, "is_arriving": True, "timeout_s": request["timeout_s"] + _EARLY_S}

        async def listen(ear: Ear[_R]) -> _R:
            return _record(kind, await self._converse(arriving, ear.counts(), ear.memory_file))

        def spare() -> None:
            self._ears_left[op] += 1

        try:
            ear = Ear(size, listen, spare)
        except OSError:  # no descriptor or no memory to spare
            return None
        self._ears_left[op] -= 1
        return ear

    async def _ask(self, request: dict[str, Any], feed: AsyncIterable[bytes] | None) -> dict[str, Any]:
        async with self._probes if request["op"] == "probe" else self._checks:
            return await self._converse(request, feed)

    async def _converse(
        self, request: dict[str, Any], feed: AsyncIterable[bytes] | None, memory_file: int | None = None
    ) -> dict[str, Any]:
        limit_s = float(request.get("timeout_s", self._timeout_s)) + _GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                with await self._zygote.converse(json.dumps(request).encode(), memory_file) as conversation:
                    return await _exchange(conversation, feed)
        except TimeoutError:
            await self._zygote.end()  # a zygote that does not keep its own limits is frozen
            raise _broken() from None
        except Lost:
            raise _broken() from None


class Ear(Generic[_R]):
    """Listens to a file of `size` bytes while it arrives. Close it, whatever comes."""

    def __init__(self, size: int, listen: Callable[[Ear[_R]], Coroutine[Any, Any, _R]], spare: Callable[[], None]):
        """`spare` is called when it listens no more. Raises OSError."""
        self._size, self._arrived, self._announced = size, 0, 0
        self._filling, self._loop, self._news = threading.Lock(), asyncio.get_running_loop(), asyncio.Event()
        self._spare = spare
        self.memory_file = _memory_file(size)
        self._listening = asyncio.create_task(listen(self))
        self._listening.add_done_callback(self._ended)

    def take(self, piece: memoryview) -> None:
        """Hear the next bytes, in whichever thread has them: the copy takes the loop too long."""
        with self._filling:
            if self.memory_file < 0 or self._arrived + len(piece) > self._size:
                return
            try:
                self._arrived += os.pwrite(self.memory_file, piece, self._arrived)
            except OSError:  # no memory left; the spool has it all
                self._loop.call_soon_threadsafe(self.close)
                return
        if self._arrived - self._announced >= _NEWS_BYTES or self._arrived == self._size or not self._announced:
            self._announced = self._arrived
            self._loop.call_soon_threadsafe(self._news.set)

    async def verdict(self) -> _R | None:
        """What the file is; None where it was not heard in full, or the probe broke: ask in the ordinary way then.

        Raises Fault.
        """
        if self._arrived != self._size and not self._listening.done():
            return None
        try:
            return await asyncio.shield(self._listening)
        except Fault as fault:
            if fault.code is FaultCode.INTERNAL:
                return None
            raise
        except (_Late, OSError):
            return None

    def close(self) -> None:
        """End the child and let the bytes go."""
        self._listening.cancel()

    async def counts(self) -> AsyncIterator[bytes]:
        """How much has arrived, from time to time. Raises _Late."""
        told, ends_s = 0, self._loop.time() + _EARLY_S
        while told < self._size:
            try:
                async with asyncio.timeout_at(ends_s):
                    await self._news.wait()
            except TimeoutError:
                raise _Late from None
            self._news.clear()
            told = self._arrived
            yield _COUNT.pack(told)

    def _ended(self, listening: asyncio.Task[_R]) -> None:
        if not listening.cancelled():
            listening.exception()  # seen, though nobody may ask
        with self._filling:  # nobody writes to a number that is another file's by then
            memory_file, self.memory_file = self.memory_file, -1
        self._loop.run_in_executor(None, os.close, memory_file)  # freeing so many pages takes a millisecond
        self._spare()


def _memory_file(size: int) -> int:
    """Memory without a name, whose size stands: a child maps it before it is filled. Raises OSError."""
    memory_file = os.memfd_create("", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory_file, size)
        fcntl.fcntl(memory_file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(memory_file)
        raise
    return memory_file


class _Late(Exception):
    """The file took too long to arrive."""


def _master(announced: Announced, timeout_s: float) -> dict[str, Any]:
    # An encoded master may be larger than the file it was made from: 24-bit WAV of 90 minutes is 3 GB at most.
    limits = {"max_bytes": 4 << 30, "max_duration_s": 2 * MAX_DURATION_S}
    return {"op": "verify", "timeout_s": timeout_s, "expected": announced, **limits}


async def _exchange(conversation: socket.socket, feed: AsyncIterable[bytes] | None) -> dict[str, Any]:
    """Feed the child and read its answer, which may come before the feed has ended."""
    pump = asyncio.create_task(_pump(conversation, feed))
    try:
        line = await _read_line(conversation)
    finally:
        was_fed = pump.done()
        pump.cancel()
        (outcome,) = await asyncio.gather(pump, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome  # the feed's own failure
    try:
        return _parse(line)
    except Fault as fault:
        if fault.code is FaultCode.RESOURCE_LIMIT and not was_fed:
            raise _broken() from None  # the feed was slow, not the file hard
        raise


async def _pump(conversation: socket.socket, feed: AsyncIterable[bytes] | None) -> None:
    loop = asyncio.get_running_loop()
    try:
        if feed is not None:
            async for chunk in feed:
                await loop.sock_sendall(conversation, chunk)
        conversation.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        return  # the child has ended; its answer says why
    except Exception:
        conversation.shutdown(socket.SHUT_RDWR)
        raise


async def _read_line(conversation: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    answer = bytearray()
    try:
        while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER_BYTES:
            piece = await loop.sock_recv(conversation, _MAX_ANSWER_BYTES)
            if not piece:
                break
            answer += piece
    except ConnectionResetError:
        raise Lost from None
    return bytes(answer)


def _parse(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise Lost
    try:
        answer = json.loads(line)
        if "fault" not in answer:
            return dict(answer["ok"])
        code, message = FaultCode(answer["fault"]["code"]), str(answer["fault"]["message"])[:500]
        numbers = {str(name): value for name, value in answer["fault"]["numbers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Lost from None
    raise Fault(code, message, **numbers)


def _record(kind: type[_R], answer: dict[str, Any]) -> _R:
    try:
        return kind.model_validate(answer)
    except ValidationError:
        raise _broken() from None


def _broken() -> Fault:
    return Fault(FaultCode.INTERNAL, "The check of this file was interrupted. Try again.")
