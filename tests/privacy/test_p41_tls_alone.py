"""P41: people come by TLS 1.3 alone, and plain HTTP carries neither tokens nor songs (the shipped proxy)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpx
import pytest

from router.core.command_error import CommandError
from router.tiers.fleet import catalogue
from tests.proxied import Proxy, proxy
from tests.stack import free_port, stack

TWO_YEARS_S = 2 * 365 * 24 * 3600


@pytest.fixture(scope="module")
def running_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder, https_port = tmp_path_factory.mktemp("proxied"), free_port()
    settings = {"public_url": f"https://localhost:{https_port}", "forwarded_by": '["127.0.0.0/8"]'}
    with (
        stack(folder, workers=0, settings=settings) as running,
        proxy(folder, int(running.url.rpartition(":")[2]), https_port) as running_proxy,
    ):
        yield running_proxy


def handshake(running_proxy: Proxy, version: ssl.TLSVersion) -> str | None:
    context = ssl.create_default_context(cafile=str(running_proxy.certificate))
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", running_proxy.https_port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


def test_tls_1_3_is_spoken_and_1_2_is_not(running_proxy: Proxy) -> None:
    assert handshake(running_proxy, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match="VERSION"):
        handshake(running_proxy, ssl.TLSVersion.TLSv1_2)


def test_browsers_are_told_to_stay_with_it_for_two_years(running_proxy: Proxy) -> None:
    trusting = ssl.create_default_context(cafile=str(running_proxy.certificate))
    with httpx.Client(
        base_url=f"https://localhost:{running_proxy.https_port}", verify=trusting, trust_env=False
    ) as http:
        page = http.get("/")
        assert page.status_code == 200
        assert page.headers["strict-transport-security"] == f"max-age={TWO_YEARS_S}; includeSubDomains"
        own = http.post("/v1/jobs", headers={"origin": f"https://localhost:{running_proxy.https_port}"})
        assert own.status_code == 201
        assert "ratelimit" in own.headers


def test_plain_http_sends_people_on_and_refuses_programs(running_proxy: Proxy) -> None:
    with httpx.Client(base_url=f"http://localhost:{running_proxy.http_port}", trust_env=False) as http:
        page = http.get("/")
        assert page.status_code == 301
        assert page.headers["location"].startswith("https://localhost")
        for method, path in (("GET", "/v1/options"), ("POST", "/v1/jobs"), ("PUT", "/v1/jobs/x/audio"), ("POST", "/")):
            assert http.request(method, path, content=b"a song").status_code == 403


def test_a_worker_elsewhere_is_not_spoken_to_in_the_clear() -> None:
    text = '[[backend]]\nname = "far"\ntier = "managed"\nurl = "http://gpu.example:9000"\n'
    with pytest.raises(CommandError, match="https only"):
        catalogue.parse_catalogue(text)
    assert catalogue.parse_catalogue(text.replace("http:", "https:"))[0].name == "far"
