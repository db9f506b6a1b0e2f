"""Who is counted, where, and what is said when it is too much."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from router.http.rate_limit import NetworkSlots, client_address
from tests.served import served

LOOPBACK = (ip_network("127.0.0.0/8"),)


def scope(peer: str, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return {"type": "http", "client": (peer, 1234), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),  # a stranger may write what he likes
        ("127.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("127.0.0.1", ("6.6.6.6, 198.51.100.1",), "198.51.100.1"),  # the proxy wrote last
        ("127.0.0.1", ("6.6.6.6", "198.51.100.1"), "198.51.100.1"),
        ("127.0.0.1", ("198.51.100.1, 127.0.0.5",), "198.51.100.1"),  # a chain of proxies of ours
        ("127.0.0.1", ("2001:db8::7",), "2001:db8::7"),
        ("127.0.0.1", (), "127.0.0.1"),
        ("127.0.0.1", ("nonsense",), "127.0.0.1"),
    ],
)
def test_the_nearest_address_that_no_proxy_of_ours_has_is_counted(
    peer: str, forwarded: tuple[str, ...], expected: str
) -> None:
    assert client_address(scope(peer, *forwarded), LOOPBACK) == ip_address(expected)


def test_this_machine_itself_is_not_counted_without_a_proxy() -> None:
    assert client_address(scope("127.0.0.1", "198.51.100.1"), ()) is None
    assert client_address(scope("::1"), ()) is None


def test_neighbours_share_a_slot_and_strangers_mostly_do_not() -> None:
    slots = NetworkSlots()
    assert slots.of(ip_address("203.0.113.1")) == slots.of(ip_address("203.0.113.254"))
    assert slots.of(ip_address("::ffff:203.0.113.1")) == slots.of(ip_address("203.0.113.9"))
    assert slots.of(ip_address("2001:db8:0:1::1")) == slots.of(ip_address("2001:db8:0:ff::9"))
    found = {slots.of(ip_address(f"10.{a}.{b}.1")) for a in range(8) for b in range(16)}
    assert len(found) >= 120  # of 128: a few may meet in 65,536 slots


async def test_too_many_requests_of_a_network_are_refused_with_numbers_and_others_are_not(tmp_path: Path) -> None:
    async with served(tmp_path, forwarded_by=["127.0.0.0/8"], requests_per_minute=5) as router:
        for left in range(4, -1, -1):
            answer = await router.http.get("/v1/options", headers={"x-forwarded-for": "203.0.113.7"})
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"requests";q=5;w=60'
            assert answer.headers["ratelimit"].startswith(f'"requests";r={left};t=')
        refused = await router.http.get("/v1/options", headers={"x-forwarded-for": "203.0.113.200"})
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["allowed"] == 5
        assert refused.headers["x-content-type-options"] == "nosniff"
        other = await router.http.get("/v1/options", headers={"x-forwarded-for": "198.51.100.7"})
        assert other.status_code == 200


async def test_opening_jobs_has_a_limit_of_its_own(tmp_path: Path) -> None:
    async with served(tmp_path, forwarded_by=["127.0.0.0/8"], new_jobs_per_10_minutes=2) as router:
        caller = {"x-forwarded-for": "203.0.113.7"}
        answers = [await router.http.post("/v1/jobs", headers=caller) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert answers[2].headers["ratelimit-policy"] == '"jobs";q=2;w=600'
        assert (await router.http.get("/v1/options", headers=caller)).status_code == 200


async def test_nothing_is_counted_on_this_machine(tmp_path: Path) -> None:
    async with served(tmp_path, requests_per_minute=1) as router:
        answers = [await router.http.get("/v1/options") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert "ratelimit" not in answers[0].headers
