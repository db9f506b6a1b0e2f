"""The probe's port: what untrusted bytes are, and whether an output is what its kind expects."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Protocol

from mastering.contract import Facts
from mastering.contract.kinds import ExpectedOutput
from mastering.protocol.probe import VerifiedAudio, VerifiedJson
from router.probe.stream_tap import StreamTap

VERIFY_TIMEOUT_S = 120.0
"""For one output."""


class AudioProbe(Protocol):
    """Facts from untrusted bytes. Every failure of a file is a `Fault`; so is a probe that broke (internal)."""

    @property
    def sandbox_gaps(self) -> tuple[str, ...] | None:
        """What the sandbox of its children does not refuse and should; None until it has been tried."""
        ...

    async def probe(
        self, feed: AsyncIterable[bytes], *, size: int = 0, timeout_s: float | None = None, account: str = ""
    ) -> Facts:
        """Facts of a recording of `size` bytes, decoded as far as it matters. Raises Fault.

        `account`, any string, never has all places at once, where there are several.
        """
        ...

    def tap_song(self, size: int | None, *, account: str = "") -> StreamTap[Facts] | None:
        """Probe an upload of `size` bytes while it arrives; None where the size is not known."""
        ...

    async def verify(
        self,
        feed: AsyncIterable[bytes],
        expected: ExpectedOutput,
        *,
        size_bytes: int | None = None,
        timeout_s: float = VERIFY_TIMEOUT_S,
    ) -> VerifiedAudio | VerifiedJson:
        """What an output is that must be as expected. Raises Fault (bad_master where it is another)."""
        ...

    def tap_output(
        self, expected: ExpectedOutput, size_bytes: int | None, *, timeout_s: float = VERIFY_TIMEOUT_S
    ) -> StreamTap[VerifiedAudio] | None:
        """Verify an output while it arrives; None where its size is not announced, or it is no audio."""
        ...
