"""Answers that are no audio: read to a limit, never unpacked, and never able to stop the router's own probing."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from mastering.contract import OutputFormat
from mastering.protocol.frames import PROTOCOL_VERSION
from router.tiers import responses
from router.tiers.fleet import fleet
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Backend, BackendHealth
from router.tiers.space.address import SpaceAddress
from router.tiers.space.api_prefix import ForeignHostError, api_prefix_of
from router.tiers.space.backend import SpaceBackend
from router.tiers.space.gradio_backend import GradioBackend
from router.tiers.space.transfer import SpaceTransfer
from router.tiers.worker.backend import WorkerBackend
from tests.services import ram_folder

GOOD = {
    "protocol": PROTOCOL_VERSION,
    "kinds": {"master": {}},
    "engine_version": "0",
    "device": "d",
    "state": "ready",
    "slots": {"total": 2, "free": 2},
}
GOOD |= {"max_bytes": 10, "max_duration_s": 10}


@asynccontextmanager
async def saying(body: bytes, *headers: str, status: int = 200) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that sends this response to every request, and the heads of the requests that came."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        head = "\r\n".join([f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "connection: close", *headers])
        writer.write(head.encode() + b"\r\n\r\n" + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()


def backends(url: str, ram: Path) -> list[Backend]:
    plain = GradioBackend("p", "cpu_space", SpaceAddress(url), ram, endpoint="/predict", returns=OutputFormat.WAV24)
    return [WorkerBackend("w", url), SpaceBackend("s", "cpu_space", SpaceAddress(url), ram), plain]


async def healths(url: str) -> list[BackendHealth]:
    with ram_folder() as ram:
        found = []
        for backend in backends(url, Path(ram)):
            found.append(await backend.probe())
            await backend.close()
    return found


def strange(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe\xfa",
        b"[" * 100_000,
        b"1" * 5000,
        strange(slots={"total": float("inf"), "free": 1}),
        strange(slots={"total": "1" * 5000, "free": 1}),
        strange(slots={"total": "one", "free": []}),
        strange(state=[]),
        strange(slots=None),
        strange(kinds=None),
        strange(kinds=["master"]),
        strange(kinds={"master": {"net": 7}}),
        strange(kinds={"k" * 129: {}}),
        strange(kinds={str(number): {} for number in range(65)}),
        b" " * (responses.MAX_RESPONSE_BYTES + 1) + strange(),
    ],
    ids=range(17),
)
async def test_an_odd_health_answer_is_no_healthy_one_and_nothing_else(body: bytes) -> None:
    async with saying(body) as (url, _):
        assert [health.up for health in await healths(url)] == [False] * 3


async def test_a_backend_says_which_kinds_it_does_and_one_of_another_version_is_told_so() -> None:
    async with saying(strange(kinds={"master": {}, "levels": {"net": "1"}})) as (url, _):
        worker, space, _ = await healths(url)
    assert worker.kinds == space.kinds == {"master": {}, "levels": {"net": "1"}}
    async with saying(strange(protocol=2, kinds=None)) as (url, _):
        worker, space, _ = await healths(url)
    for health in (worker, space):
        assert (health.up, health.detail) == (
            False,
            "protocol 2 is not spoken here, only 3: upgrade the older of the two sides",
        )


async def test_a_packed_answer_is_neither_asked_for_nor_unpacked() -> None:
    async with saying(gzip.compress(strange()), "content-encoding: gzip") as (url, heads):
        assert [health.up for health in await healths(url)] == [False] * 3
    assert [b"accept-encoding: identity\r\n" in head.lower() for head in heads] == [True] * 3


async def test_an_answer_as_long_as_the_limit_is_read() -> None:
    body = strange()
    async with saying(b" " * (responses.MAX_RESPONSE_BYTES - len(body)) + body) as (url, _):
        worker, space, _ = await healths(url)
    assert (worker.up, space.up) == (True, True)


async def test_what_a_backend_calls_itself_is_short_and_can_be_written() -> None:
    async with saying(strange(device="\ud800" * 5000, engine_version="9" * 5000)) as (url, _):
        worker, space, _ = await healths(url)
    for health in (worker, space):
        assert (health.device, health.engine_version) == ("?" * 64, "9" * 32)


@pytest.mark.parametrize("status", [200, 500])
async def test_a_packed_master_is_refused(status: int) -> None:
    async with saying(gzip.compress(b"0" * 10_000_000), "content-encoding: gzip", status=status) as (url, _):
        transfer = SpaceTransfer(url, {})
        try:
            with pytest.raises(TierFault) as caught:
                _ = [chunk async for chunk in transfer.output("j", OutputFormat.WAV24, 10_000_000, "0" * 64)]
        finally:
            await transfer.close()
    assert caught.value.fault_class is FaultClass.BUG


@pytest.mark.parametrize(
    ("said", "expected"), [("17", 17.0), ("²", 3.0), ("٣", 3.0), ("9" * 400, 3.0), ("-1", 3.0), ("", 3.0)]
)
def test_retry_after_is_a_sane_number_of_seconds_or_nothing(said: str, expected: float) -> None:
    assert expected == responses.retry_after_s(said, 3.0)


class _Odd:
    name, tier, silence_s = "odd", "managed", 1.0

    async def probe(self) -> BackendHealth:
        raise httpx.DecodingError("odd")

    async def close(self) -> None:
        return


async def test_a_probe_that_breaks_is_a_backend_that_is_down_and_stops_nobody() -> None:
    made = fleet.Fleet([_Odd()])  # type: ignore[list-item]
    await made.start()
    await made.close()
    (member,) = made.members()
    assert member.health is not None
    assert (member.health.up, member.health.detail) == (False, "its answer could not be read")


@pytest.mark.parametrize("prefix", ["", "/", "/gradio_api", "/gradio_api/", "/a/b-c"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    assert prefix.strip("/") == api_prefix_of({"api_prefix": prefix})


@pytest.mark.parametrize(
    "prefix", ["https://elsewhere.example", "//elsewhere.example", "/..", "/a?b", "/https:/x", "x", "/a\n", 7, ["/a"]]
)
async def test_a_prefix_that_leads_elsewhere_is_not_followed(prefix: object) -> None:
    with pytest.raises(ForeignHostError):
        api_prefix_of({"api_prefix": prefix})
    body = json.dumps({"api_prefix": prefix, "dependencies": [{"api_name": "predict"}]}).encode()
    async with saying(body) as (url, heads):
        *_, plain = await healths(url)
    assert (plain.up, plain.detail) == (False, "the Space sends its callers to another address")
    assert len(heads) == 3
