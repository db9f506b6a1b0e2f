"""Who is counted, where, and what is said when it is too much."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from router.http.rate_limit import NetworkSlots, client_address
from tests.openid import FakeProvider, openid_provider, settings_of
from tests.people import person
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


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with openid_provider() as provider:
        yield provider


NEIGHBOUR = {"x-forwarded-for": "203.0.113.7"}


async def test_people_are_counted_by_account_and_no_neighbour_shuts_them_out(
    tmp_path: Path, provider: FakeProvider
) -> None:
    """Sixty unsigned requests of a neighbour once locked a signed-in person out for minutes."""
    limits = {"new_jobs_per_10_minutes": 2, "requests_per_minute": 20}
    async with (
        served(tmp_path, forwarded_by=["127.0.0.0/8"], **limits, **settings_of(provider)) as router,
        person(router, provider, "ann") as ann,
        person(router, provider, "bob") as bob,
    ):
        token = (await bob.post("/v1/account/tokens", json={"scope": "jobs"})).json()["secret"]
        strangers = [await router.http.post("/v1/jobs", headers=NEIGHBOUR) for _ in range(25)]
        assert {answer.status_code for answer in strangers} == {401, 429}
        assert (await router.http.get("/v1/options", headers=NEIGHBOUR)).status_code == 429
        mine = [await ann.post("/v1/jobs", headers=NEIGHBOUR) for _ in range(3)]
        assert [answer.status_code for answer in mine] == [201, 201, 429]
        assert "for one account" in mine[2].json()["detail"]
        elsewhere = await ann.post("/v1/jobs", headers={"x-forwarded-for": "198.51.100.1"})
        assert elsewhere.status_code == 429, "an account has one count, wherever it is"
        credentials = {"authorization": f"Bearer {token}", **NEIGHBOUR}
        assert (await router.http.post("/v1/jobs", headers=credentials)).status_code == 201
        forged = {"authorization": "Bearer mr_nobody", **NEIGHBOUR}
        assert (await router.http.post("/v1/jobs", headers=forged)).status_code == 429


async def test_beginning_to_sign_in_keeps_no_neighbour_from_it_and_failures_are_counted(
    tmp_path: Path, provider: FakeProvider
) -> None:
    """Thirty calls of /sign-in once closed it for the whole network."""
    async with served(
        tmp_path, forwarded_by=["127.0.0.0/8"], failed_sign_ins_per_10_minutes=2, **settings_of(provider)
    ) as router:
        begun = [await router.http.get("/sign-in", headers=NEIGHBOUR) for _ in range(10)]
        assert {answer.status_code for answer in begun} == {303}
        async with person(router, provider, "ann", headers=NEIGHBOUR) as ann:
            assert (await ann.get("/v1/account")).status_code == 200
        strangers = [await router.http.get("/sign-in/callback?code=x&state=y", headers=NEIGHBOUR) for _ in range(5)]
        assert {answer.status_code for answer in strangers} == {400}, "what costs nothing is not counted"
        failed = []
        for _ in range(3):
            begun = await router.http.get("/sign-in", headers=NEIGHBOUR)
            state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
            callback = f"/sign-in/callback?code=guessed&state={state}"
            failed.append(await router.http.get(callback, headers=NEIGHBOUR))
        assert [answer.status_code for answer in failed] == [400, 400, 429]
        assert failed[2].headers["ratelimit-policy"] == '"failed sign-ins";q=2;w=600'


async def test_nothing_is_counted_on_this_machine(tmp_path: Path) -> None:
    async with served(tmp_path, requests_per_minute=1) as router:
        answers = [await router.http.get("/v1/options") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert "ratelimit" not in answers[0].headers
