"""What every answer carries, and who is not answered: headers, hosts, origins, bodies, errors in one form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.core.errors import TABLE
from router.http import security_headers
from router.web.api import jobs
from tests.served import Served, served
from tests.services import SONG


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as router:
        yield router


def assert_guarded(response: Any) -> None:
    for name, value in security_headers.ALWAYS.items():
        assert response.headers[name] == value, (response.status_code, name)
    assert "access-control-allow-origin" not in response.headers
    assert "server" not in response.headers
    assert "set-cookie" not in response.headers


def assert_problem(response: Any, status: int, code: str) -> None:
    problem = response.json()
    assert (response.status_code, problem["code"], problem["status"]) == (status, code, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/errors/{code}"
    assert problem["title"] == TABLE[code].title
    assert problem["detail"].endswith(".")
    assert_guarded(response)


async def test_every_answer_carries_the_headers_good_or_bad(router: Served) -> None:
    job = await router.create()
    answers = [
        await router.http.get("/"),
        await router.http.get("/v1/options"),
        await router.http.get("/openapi.json"),
        await router.http.get("/static/none/none.js"),
        await router.http.get("/nothing"),
        await router.http.post("/v1/options"),
        await router.http.put(f"/v1/jobs/{job['id']}/audio", content=b""),
        await router.http.get(f"/v1/jobs/{job['id']}/outputs/wav24"),
        await router.http.head(f"/v1/jobs/{job['id']}/audio"),
    ]
    for response in answers:
        assert_guarded(response)
    assert {response.status_code for response in answers} >= {200, 404, 405, 422, 410}


async def test_an_unknown_address_and_a_wrong_method_are_problems(router: Served) -> None:
    assert_problem(await router.http.get("/nothing"), 404, "not_found")
    wrong = await router.http.delete("/v1/options")
    assert_problem(wrong, 405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]


async def test_an_error_of_our_own_is_a_problem_that_tells_nothing(
    router: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("/srv/secret/path of 127.0.0.1")

    monkeypatch.setattr(jobs, "view", broken)
    response = await router.http.post("/v1/jobs")
    assert_problem(response, 500, "internal")
    assert "secret" not in response.text


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 20_000, b'{"target": "\\ud800"}', b"null", b"1", b'"x"'])
async def test_a_body_that_is_no_settings_is_a_problem_of_the_client(router: Served, body: bytes) -> None:
    response = await router.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    if body == b"null":
        assert response.status_code == 201  # no settings are the defaults
        return
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code, response.json()["code"])


async def test_a_body_that_is_large_is_not_read_where_none_is_due(router: Served) -> None:
    stated = await router.http.post("/v1/jobs", content=bytes(security_headers.MAX_BODY_BYTES + 1))
    assert_problem(stated, 413, "too_large")

    async def unstated() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (security_headers.MAX_BODY_BYTES // 2)

    assert_problem(
        await router.http.post("/v1/jobs", content=unstated(), headers={"content-type": "application/json"}),
        413,
        "too_large",
    )


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "", "evil..", "."],
)
async def test_a_foreign_host_is_refused(router: Served, host: str) -> None:
    """A page that made its own name resolve to this address (DNS rebinding) is not answered."""
    assert_problem(await router.http.get("/v1/options", headers={"host": host}), 421, "foreign_host")


@pytest.mark.parametrize(
    "host",
    ["evil@localhost", "localhost/evil", "localhost:80:80", "[::1", "[]", "@", "localhost localhost", "localhost:x"],
)
async def test_a_host_with_more_than_name_and_port_is_no_host(router: Served, host: str) -> None:
    assert_problem(await router.http.get("/v1/options", headers={"host": host}), 400, "bad_request")


async def test_a_request_that_names_two_hosts_is_refused(router: Served) -> None:
    for second in (b"localhost", b"evil.example"):
        reader, writer = await router.raw(
            b"GET /v1/options HTTP/1.1\r\nhost: localhost\r\nhost: " + second + b"\r\nconnection: close\r\n\r\n"
        )
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400"), answer


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
async def test_a_body_that_is_packed_is_refused_with_a_sentence(router: Served, encoding: str) -> None:
    job = await router.create()
    headers = {"content-encoding": encoding}
    answers = [
        await router.http.post("/v1/jobs", content=b"{}", headers={**headers, "content-type": "application/json"}),
        await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG, headers=headers),
    ]
    for answer in answers:
        assert_problem(answer, 415, "unsupported_media_type")
        assert "Content-Encoding" in answer.json()["detail"]
    assert (await router.http.get(f"/v1/jobs/{job['id']}")).json()["upload"]["offset_bytes"] == 0


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/options/", "//v1/jobs", "/account/"])
async def test_an_address_with_a_slash_too_many_leads_nowhere(router: Served, path: str) -> None:
    """Behind a proxy a redirect would name http and the router's own address."""
    answer = await router.http.get(path)
    assert "location" not in answer.headers
    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost.", "LOCALHOST:8080", "[::1]:80"])
async def test_names_of_this_machine_are_answered(router: Served, host: str) -> None:
    assert (await router.http.get("/v1/options", headers={"host": host})).status_code == 200


async def test_unsafe_methods_from_another_site_are_refused_and_do_nothing(router: Served) -> None:
    job = await router.create()
    address = f"/v1/jobs/{job['id']}"
    for origin in ("https://evil.example", "null", "http://127.0.0.1", f"https://127.0.0.1:{router.port}", "http://x@"):
        for method, path in (("POST", "/v1/jobs"), ("PUT", f"{address}/audio"), ("DELETE", address)):
            response = await router.http.request(method, path, headers={"origin": origin}, content=b"")
            assert_problem(response, 403, "foreign_origin")
    assert (await router.http.get(address)).json()["state"] == "received"
    assert len([found async for found in router.services.jobs.scan()]) == 1


async def test_the_page_itself_may_do_everything_and_others_may_look(router: Served) -> None:
    own = {"origin": f"http://127.0.0.1:{router.port}"}
    job = (await router.http.post("/v1/jobs", headers=own)).json()
    sent = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG, headers=own)
    assert sent.status_code == 202
    looked = await router.http.get("/v1/options", headers={"origin": "https://evil.example"})
    assert looked.status_code == 200
    assert_guarded(looked)


async def test_no_route_lets_anybody_look_around(router: Served) -> None:
    paths = set((await router.http.get("/openapi.json")).json()["paths"])
    for path in ("/redoc", "/metrics", "/v1", "/static/", "/static/x/../../errors.py", "/.env"):
        assert (await router.http.get(path)).status_code == 404
    assert "/v1/jobs/{job_id}" in paths


async def test_every_error_that_an_endpoint_names_is_described(router: Served) -> None:
    described = (await router.http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400 and status != "422":
                    assert "application/problem+json" in response["content"], (method, path, status)


async def test_a_large_body_is_refused_wherever_no_audio_is_due(router: Served) -> None:
    response = await router.http.put("/v1/account/consent", content=bytes(security_headers.MAX_BODY_BYTES + 1))
    assert_problem(response, 413, "too_large")


async def test_a_number_beyond_all_measure_is_refused(router: Served) -> None:
    job = await router.create()
    body, headers = '{"size_bytes": 1' + "0" * 400 + "}", {"content-type": "application/json"}
    created = await router.http.post("/v1/jobs", content=body, headers=headers)
    assert_problem(created, 422, "bad_settings")
    audio = f"/v1/jobs/{job['id']}/audio"
    assert_problem(await router.http.put(audio, content=b"x", headers={"upload-offset": "9" * 400}), 400, "bad_request")


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("master.example", "https://master.example", True),
        ("master.example:443", "https://master.example", True),
        ("master.example.", "https://master.example", True),
        ("MASTER.example.:443", "https://master.example", True),
        ("master.example:80", "https://master.example", False),
        ("master.example:8443", "https://master.example", False),
        ("master.example", "http://master.example", False),
        ("localhost:80", "http://localhost", True),
        ("localhost:8080", "http://localhost:8080", True),
        ("localhost:8080", "http://localhost", False),
    ],
)
def test_the_own_origin_is_the_same_by_whichever_name_of_it(host: str, origin: str, is_own: bool) -> None:
    site = security_headers.Site(frozenset({"localhost"}), "https://master.example")
    assert site.answers_to(host)
    assert (site.own_origin("http", host) == origin) == is_own
