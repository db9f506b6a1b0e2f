"""The probe as the router sees it: asks a sandboxed process what untrusted bytes are, and whether a master is sound.

The bytes go to a child of that process by a socket, from the spool or, while they arrive anyhow, piece by piece
(`stream_tap`): then the answer comes a moment after the last byte. The router holds one chunk of them at a time.
`process` starts the process; `answers` says what of its answers is believed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES, Facts, Fault, FaultCode
from mastering.contract.kinds import ExpectedAudio, ExpectedOutput
from mastering.protocol.probe import AnswerT, ProbeRequest, SandboxChecks, VerifiedAudio, VerifiedJson
from router.probe.answers import parse_answer, probe_broken, read_line
from router.probe.port import VERIFY_TIMEOUT_S
from router.probe.process import ProbeLost, ProbeProcess
from router.probe.shared_places import SharedPlaces
from router.probe.stream_tap import MAX_ARRIVAL_S, StreamTap
from router.probe.wav_header import WavHeaderReader

_R = TypeVar("_R", Facts, VerifiedAudio)
_MAX_JSON_BYTES = 64 * 1024 * 1024
"""Of an output that is JSON, which is taken apart in memory."""
_GRACE_S = 10.0
"""Seconds past a request's own time limit that the probe's process may take to say so."""
_BYTES_PER_S = 2_000_000
"""Bytes a second that a slow machine decodes of the densest codec."""
_MOST_KEPT_BYTES = 128 * 1024 * 1024
"""A file of which a child must keep more in memory, which no plain WAV is, is not probed while it arrives."""
_CURES = {
    "network namespace": "allow user namespaces, or run the router as root of its own container",
    "unprivileged user": "run the router as an unprivileged user",
    "Landlock": "use a kernel of 5.13 or later with Landlock switched on",
}
_TRIAL_CURE = "run on Linux on x86_64 or aarch64 with seccomp and Landlock allowed"


@dataclass(frozen=True)
class SandboxLayer:
    """One layer of the probe's sandbox: whether it holds, and what to do where it does not."""

    name: str
    holds: bool
    cure: str = ""


class Probe:
    """Facts from untrusted bytes. Every failure of a file is a `Fault`; so is a probe that broke (internal)."""

    def __init__(
        self,
        *,
        concurrency: int = 2,
        timeout_s: float = 30.0,
        max_bytes: int = MAX_INPUT_BYTES,
        max_duration_s: float = MAX_DURATION_S,
        allows_incomplete_sandbox: bool = False,
    ) -> None:
        """`allows_incomplete_sandbox`: to read files although this machine can't refuse a child all that it should."""
        # Apart: strangers' slow files must not keep finished masters waiting.
        share = max(1, concurrency - 1)
        self._probes, self._checks = SharedPlaces(concurrency, share), SharedPlaces(concurrency, concurrency)
        self._taps = {"probe": SharedPlaces(concurrency, share), "verify": SharedPlaces(concurrency, concurrency)}
        self._timeout_s = timeout_s
        self._limits = {"max_bytes": max_bytes, "max_duration_s": max_duration_s}
        self._allows_incomplete_sandbox = allows_incomplete_sandbox
        self.sandbox_gaps: tuple[str, ...] | None = None
        self._process = ProbeProcess()
        self._wav_headers = WavHeaderReader(self._process)

    async def start(self) -> None:
        """Start the probe's process if it does not run, try its sandbox, and wait until it takes requests.

        Raises Fault(internal).
        """
        try:
            await self._process.open()
            await self._try_sandbox()
            await self._wav_headers.open()
        except ProbeLost:
            raise probe_broken() from None

    async def close(self) -> None:
        """End the probe's process and its children."""
        await self._process.close()
        self._wav_headers.close()

    async def probe(
        self, feed: AsyncIterable[bytes], *, size: int = 0, timeout_s: float | None = None, account: str = ""
    ) -> Facts:
        """Facts of a recording of `size` bytes, decoded as far as it matters. Raises Fault.

        `account`, any string, never has all places at once, where there are several. A large file may take longer:
        ninety minutes of Opus (90 MB) decode in 10 to 25 s on one shared core. Past the ordinary limit the probe stops
        where too little sound comes out for the time.
        """
        request = self._song(size, timeout_s or self._timeout_s)
        return await self._ask(Facts, request.model_copy(update={"size": size or None}), feed, account)

    def tap_song(self, size: int | None, *, account: str = "") -> StreamTap[Facts] | None:
        """Probe an upload of `size` bytes while it arrives; None where the size is not known."""
        return self._tap(self._song(size or 0, self._timeout_s), Facts, size, account)

    async def verify(
        self,
        feed: AsyncIterable[bytes],
        expected: ExpectedOutput,
        *,
        size_bytes: int | None = None,
        timeout_s: float = VERIFY_TIMEOUT_S,
    ) -> VerifiedAudio | VerifiedJson:
        """What an output is that must be as expected. Raises Fault (bad_master where it is another)."""
        request = _verification(expected, size_bytes, timeout_s)
        if isinstance(expected, ExpectedAudio):
            return await self._ask(VerifiedAudio, request, feed)
        return await self._ask(VerifiedJson, request, feed)

    def tap_output(
        self, expected: ExpectedOutput, size_bytes: int | None, *, timeout_s: float = VERIFY_TIMEOUT_S
    ) -> StreamTap[VerifiedAudio] | None:
        """Verify an output while it arrives; None where its size is not announced, or it is no audio."""
        if not isinstance(expected, ExpectedAudio):
            return None
        return self._tap(_verification(expected, size_bytes, timeout_s), VerifiedAudio, size_bytes)

    async def _try_sandbox(self) -> None:
        checks = await self._ask(SandboxChecks, ProbeRequest(op="selfcheck"), None)
        self.sandbox_gaps = tuple(attempt for attempt, refused in checks.refused.items() if not refused)

    @property
    def _may_read(self) -> bool:
        return self.sandbox_gaps is not None and (not self.sandbox_gaps or self._allows_incomplete_sandbox)

    async def selfcheck(self) -> tuple[SandboxLayer, ...]:
        """Which layers of the sandbox hold, tried from inside a child. Raises Fault(internal)."""
        checks = await self._ask(SandboxChecks, ProbeRequest(op="selfcheck"), None)
        layers = {name: (holds, _CURES.get(name, "")) for name, holds in self._process.sandbox_layers.items()}
        layers |= {f"refused: {name}": (held, _TRIAL_CURE) for name, held in checks.refused.items()}
        return tuple(SandboxLayer(name, holds, "" if holds else cure) for name, (holds, cure) in layers.items())

    def _song(self, size: int, patience_s: float) -> ProbeRequest:
        limits = {"timeout_s": patience_s + size / _BYTES_PER_S, "patience_s": patience_s, **self._limits}
        return ProbeRequest.model_validate({"op": "probe", **limits})

    def _tap(self, request: ProbeRequest, kind: type[_R], size: int | None, account: str = "") -> StreamTap[_R] | None:
        if not size or not self._may_read:
            return None
        timeout_s = request.timeout_s + MAX_ARRIVAL_S
        limits = {"size": size, "most_kept_bytes": _MOST_KEPT_BYTES, "timeout_s": timeout_s}
        arriving = request.model_copy(update=limits)

        def read_header(beginning: memoryview) -> _R | None:
            return self._wav_headers.read(kind, arriving, beginning)

        async def probe_in_child(tap: StreamTap[_R]) -> _R:
            with self._taps[request.op].one_if_free(account) as is_taken:
                if not is_taken:
                    raise probe_broken()  # it is probed from the spool, when there is a place
                async with self._answering(arriving):
                    conversation = await self._process.converse(arriving.model_dump_json().encode())
                    tap.attach(conversation)
                    return parse_answer(kind, await read_line(conversation))

        self._wav_headers.reopen_if_lost()
        return StreamTap(size, read_header, probe_in_child)

    async def _ask(
        self, kind: type[AnswerT], request: ProbeRequest, feed: AsyncIterable[bytes] | None, account: str = ""
    ) -> AnswerT:
        if request.op != "selfcheck":
            if self.sandbox_gaps is None:
                await self._try_sandbox()
            if not self._may_read:
                raise probe_broken()
        places = self._probes if request.op == "probe" else self._checks
        async with places.one(account), self._answering(request):
            deadline = time.monotonic() + request.timeout_s
            with await self._process.converse(request.model_dump_json().encode()) as conversation:
                return await _exchange(kind, conversation, feed, deadline)

    @asynccontextmanager
    async def _answering(self, request: ProbeRequest) -> AsyncIterator[None]:
        """Wait for an answer no longer than the request's limit and a grace. Raises Fault(internal) after that."""
        try:
            async with asyncio.timeout(request.timeout_s + _GRACE_S):
                yield
        except TimeoutError:
            await self._process.end()  # a process that does not keep its own limits is frozen
            raise probe_broken() from None
        except ProbeLost:
            raise probe_broken() from None


def _verification(expected: ExpectedOutput, size_bytes: int | None, timeout_s: float) -> ProbeRequest:
    # An encoded master may be larger than the file it was made from: 24-bit WAV of 90 minutes is 3 GB at most.
    return ProbeRequest(
        op="verify",
        timeout_s=timeout_s,
        expected=expected,
        expected_bytes=size_bytes,
        max_bytes=4 << 30 if isinstance(expected, ExpectedAudio) else _MAX_JSON_BYTES,
        max_duration_s=2 * MAX_DURATION_S,
    )


async def _exchange(
    kind: type[AnswerT], conversation: socket.socket, feed: AsyncIterable[bytes] | None, deadline: float
) -> AnswerT:
    """Feed the child and read its answer, which may come before the feed has ended.

    `deadline`, in monotonic seconds: a child that is ended then may have waited for the feed.
    """
    pump = asyncio.create_task(_pump(conversation, feed))
    try:
        line = await read_line(conversation)
    finally:
        was_fed = pump.done()
        pump.cancel()
        (outcome,) = await asyncio.gather(pump, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome  # the feed's own failure
    try:
        return parse_answer(kind, line)
    except Fault as fault:
        if fault.code is FaultCode.RESOURCE_LIMIT and not was_fed and time.monotonic() >= deadline:
            raise probe_broken() from None  # the feed was slow, not the file hard
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
