"""What tests of several rooms of the router ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from router.probe.client import Probe


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def probe(warm_probes: None) -> AsyncIterator[Probe]:
    """One for all tests of a file: those that kill its process find it replaced."""
    probe = Probe()
    await probe.start()
    yield probe
    await probe.close()
