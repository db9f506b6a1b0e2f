"""The router's end of the probe: asks a sandboxed process what untrusted bytes are, and whether a master holds.

The process is `python -m mastering.probe`: a zygote that forks one locked-up child for each request. It is started
once, replaced when it dies, and dies with the router: its socket is the only thing that keeps it. The bytes stream
through a socket into the child's memory; the router holds one chunk of them at a time. (Over 250 lines: asking,
restarting and conversing are one protocol, and read worse apart.)
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES, Facts, Fault, FaultCode

_R = TypeVar("_R", bound=Facts)
_START_S = 60.0
_GRACE_S = 10.0
"""How long past a request's own time limit the zygote may take to say so."""
_TAKEN = b"+\n"
"""The zygote's word that a request has arrived."""
_BYTES_PER_S = 2_000_000
"""What a slow machine decodes of the densest codec."""
_MAX_ANSWER_BYTES = 64 * 1024
_CURES = {
    "network namespace": "allow user namespaces, or run the router as root of its own container",
    "unprivileged user": "run the router as an unprivileged user",
    "Landlock": "use a kernel of 5.13 or later with Landlock switched on",
}
_TRIAL_CURE = "run on Linux on x86_64 or aarch64 with seccomp and Landlock allowed"


class Verified(Facts):
    """Facts of a master that decodes to its end and is what was announced. The digest guards one transfer."""

    sha256: str
    size: int
    sample_peak_dbfs: float


@dataclass(frozen=True)
class Layer:
    """One fence of the sandbox: whether it stands, and what to do where it does not."""

    name: str
    holds: bool
    cure: str = ""


class _Lost(Exception):
    """The zygote went away."""


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
        self._timeout_s = timeout_s
        self._limits = {"max_bytes": max_bytes, "max_duration_s": max_duration_s}
        self._starting = asyncio.Lock()
        self._is_open = False
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._fences: dict[str, bool] = {}

    async def start(self) -> None:
        """Start the zygote if none runs, and wait until it listens. Raises Fault(internal)."""
        self._is_open = True
        await self._ensure()

    async def close(self) -> None:
        """End the zygote and its children."""
        self._is_open = False
        await self._end()

    async def probe(self, feed: AsyncIterable[bytes], *, size: int = 0, timeout_s: float | None = None) -> Facts:
        """Facts of a recording of `size` bytes, decoded to its end. Raises Fault.

        A large file may take longer: ninety minutes of Opus (90 MB) decode in 10 to 25 s on one shared core. What the
        probe hears decides: past the ordinary limit it stops where too little sound comes out for the time.
        """
        patience_s = timeout_s or self._timeout_s
        limits = {"timeout_s": patience_s + size / _BYTES_PER_S, "patience_s": patience_s, **self._limits}
        answer = await self._ask({"op": "probe", **limits}, feed)
        return _record(Facts, answer)

    async def verify(
        self,
        feed: AsyncIterable[bytes],
        *,
        frames: int,
        rate_hz: int,
        channels: int,
        tolerance_frames: int = 0,
        sha256: str | None = None,
        size: int | None = None,
        timeout_s: float = 120.0,
    ) -> Verified:
        """Facts of a master that must be as announced. Raises Fault (bad_master where it is another)."""
        expected = {
            "frames": frames,
            "rate_hz": rate_hz,
            "channels": channels,
            "tolerance_frames": tolerance_frames,
            "sha256": sha256,
            "size": size,
        }
        # An encoded master may be larger than the file it was made from: 24-bit WAV of 90 minutes is 3 GB at most.
        limits = {"max_bytes": 4 << 30, "max_duration_s": 2 * MAX_DURATION_S}
        answer = await self._ask({"op": "verify", "timeout_s": timeout_s, "expected": expected, **limits}, feed)
        return _record(Verified, answer)

    async def selfcheck(self) -> tuple[Layer, ...]:
        """Which fences stand, tried from inside a child. Raises Fault(internal)."""
        trials = await self._ask({"op": "selfcheck"}, None)
        fences = [Layer(name, holds, "" if holds else _CURES.get(name, "")) for name, holds in self._fences.items()]
        inside = [Layer(f"refused: {name}", bool(held), "" if held else _TRIAL_CURE) for name, held in trials.items()]
        return (*fences, *inside)

    async def _ask(self, request: dict[str, Any], feed: AsyncIterable[bytes] | None) -> dict[str, Any]:
        async with self._probes if request["op"] == "probe" else self._checks:
            limit_s = float(request.get("timeout_s", self._timeout_s)) + _GRACE_S
            try:
                async with asyncio.timeout(limit_s):
                    with await self._converse(json.dumps(request).encode()) as conversation:
                        return await _exchange(conversation, feed)
            except TimeoutError:
                await self._end()  # a zygote that does not keep its own limits is frozen
                raise _broken() from None
            except _Lost:
                raise _broken() from None

    async def _ensure(self) -> None:
        async with self._starting:
            if not self._is_open:
                raise _broken()
            if self._process is None or self._process.returncode is not None:
                await self._stop()
                await self._spawn()

    async def _end(self) -> None:
        async with self._starting:
            await self._stop()

    async def _converse(self, packet: bytes) -> socket.socket:
        """Open one conversation; a zygote that died since the last one is replaced."""
        for _ in range(2):
            await self._ensure()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                ours.setblocking(False)
                try:
                    assert self._control is not None  # noqa: S101 - _ensure has just set it
                    socket.send_fds(self._control, [packet], [theirs.fileno()])
                    theirs.close()
                    # Nothing of the feed is taken before somebody is there to take it.
                    if await asyncio.get_running_loop().sock_recv(ours, len(_TAKEN)) == _TAKEN:
                        return ours
                except OSError:
                    pass  # dead or dying; looked after below
                except BaseException:
                    ours.close()
                    raise
                ours.close()
                await self._end()
        raise _Lost

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "mastering.probe", "--zygote", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ},
                start_new_session=True,
            )
        self._control = ours
        try:
            async with asyncio.timeout(_START_S):
                hello = await asyncio.get_running_loop().sock_recv(ours, _MAX_ANSWER_BYTES)
            self._fences = json.loads(hello)["ready"]
        except (TimeoutError, OSError, ValueError, KeyError):
            await self._stop()
            raise _broken() from None

    async def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()


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
        raise _Lost from None
    return bytes(answer)


def _parse(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise _Lost
    try:
        answer = json.loads(line)
        if "fault" not in answer:
            return dict(answer["ok"])
        code, message = FaultCode(answer["fault"]["code"]), str(answer["fault"]["message"])[:500]
        numbers = {str(name): value for name, value in answer["fault"]["numbers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _Lost from None
    raise Fault(code, message, **numbers)


def _record(kind: type[_R], answer: dict[str, Any]) -> _R:
    try:
        return kind.model_validate(answer)
    except ValidationError:
        raise _broken() from None


def _broken() -> Fault:
    return Fault(FaultCode.INTERNAL, "The check of this file was interrupted. Try again.")
