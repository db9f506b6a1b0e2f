"""P43: strict headers on every answer, graded by the Observatory's published scoring."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from router.http.security_headers import SPACE_FRAME
from tests.observatory import score
from tests.served import served
from tests.stack import stack

PUBLIC = "https://localhost:8443"  # a name of this machine: without sign-in no other may be public
WANTED = 130


def test_the_grader_itself_tells_good_from_bad() -> None:
    assert score({}) == 0 + 100 - 25 - 20 - 5 - 20
    assert score({"content-security-policy": "default-src 'self' 'unsafe-inline'"}) < WANTED - 50
    good = {
        "content-security-policy": "default-src 'none'; script-src 'self'; frame-ancestors 'none'",
        "strict-transport-security": "max-age=63072000",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }
    assert score(good) == WANTED
    assert score(good, ["a=b; Secure; HttpOnly; SameSite=Lax"]) == WANTED + 5
    assert score(good, ["a=b; HttpOnly; SameSite=Lax"]) == 60
    for name in good:
        assert score({key: value for key, value in good.items() if key != name}) < WANTED


async def test_every_kind_of_answer_earns_the_grade(tmp_path: Path) -> None:
    async with served(tmp_path, public_url=PUBLIC, forwarded_by=["127.0.0.0/8"], requests_per_minute=40) as router:
        people = {"host": "localhost:8443", "x-forwarded-for": "203.0.113.4"}
        job = (await router.http.post("/v1/jobs", headers=people)).json()
        page = await router.http.get("/", headers=people)
        static = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
        answers = [
            page,
            await router.http.get(static, headers=people),
            await router.http.get("/v1/options", headers=people),
            await router.http.get("/nothing", headers=people),
            await router.http.delete("/v1/options", headers=people),
            await router.http.post("/v1/jobs", content=bytes(100_000), headers=people),
            await router.http.post("/v1/jobs", headers=people | {"origin": "https://evil.example"}),
            await router.http.put(f"/v1/jobs/{job['id']}/audio", content=b"", headers=people),
            await router.http.get("/", headers={"host": "evil.example"}),
        ]
        while answers[-1].status_code != 429:
            assert len(answers) < 60
            answers.append(await router.http.get("/v1/options", headers=people))
        assert {answer.status_code for answer in answers} >= {200, 404, 405, 413, 403, 422, 421, 429}
        for answer in answers:
            assert score(answer.headers, answer.headers.get_list("set-cookie")) >= WANTED, answer.status_code


def test_what_is_no_http_gets_the_headers_too(tmp_path: Path) -> None:
    with (
        stack(tmp_path, workers=0) as running,
        socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as stranger,
    ):
        stranger.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        said = b""
        while chunk := stranger.recv(4096):
            said += chunk
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-security-policy: default-src 'none'" in head
    assert b'"code": "bad_request"' in body


async def test_a_router_in_a_space_may_be_framed_by_its_host_alone(tmp_path: Path) -> None:
    async with served(tmp_path, profile="space") as router:
        headers = (await router.http.get("/")).headers
        assert f"frame-ancestors {SPACE_FRAME}" in headers["content-security-policy"]
        assert "x-frame-options" not in headers
    async with served(tmp_path) as router:
        headers = (await router.http.get("/")).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://huggingface.co", "http://localhost:8443"])
async def test_p42_no_foreign_origin_may_change_anything_and_none_may_read(tmp_path: Path, origin: str) -> None:
    async with served(tmp_path, public_url=PUBLIC) as router:
        people = {"host": "localhost:8443", "origin": origin}
        for method, path in (("POST", "/v1/jobs"), ("PUT", "/v1/account/consent"), ("DELETE", "/v1/jobs/x")):
            answer = await router.http.request(method, path, headers=people)
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        looked = await router.http.get("/v1/options", headers=people)
        assert not [name for name in looked.headers if name.startswith("access-control-")]
        preflight = {**people, "access-control-request-method": "POST"}
        asked = await router.http.options("/v1/jobs", headers=preflight)
        assert not [name for name in asked.headers if name.startswith("access-control-")]
        own = {"host": "localhost:8443", "origin": PUBLIC}
        assert (await router.http.post("/v1/jobs", headers=own)).status_code == 201
        hidden = {"host": "localhost:8443", "sec-fetch-site": "cross-site"}
        assert (await router.http.post("/v1/jobs", headers=hidden)).status_code == 403
