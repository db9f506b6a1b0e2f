"""The shipped proxy: silence before a request is cut off, no network takes all its connections, long requests pass."""

from __future__ import annotations

import json
import re
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.proxied import CONFIGURATION, Proxy, environment_of, proxy, whole_program
from tests.stack import stack

CUT_OFF_S = 10.0
"""What the configuration allows for a handshake and for a request's head."""
_SPARE_S = 8.0
"""For a machine that is busy with other tests; without a limit the silence lasted 75 s."""
_PLACES = 4000
"""Connections that the proxy takes at a time."""
_HEAD = b"GET /v1/options HTTP/1.1\r\nHost: localhost\r\n"
ONE, ANOTHER = "127.0.2.2", "127.0.3.3"
"""Addresses of two networks (/24)."""


@pytest.fixture(scope="module")
def running_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxied")
    with (
        stack(folder, workers=0) as running,
        proxy(folder, int(running.url.rpartition(":")[2])) as before,
    ):
        yield before


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def trusting(before: Proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(before.certificate))


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))


def secure(before: Proxy) -> socket.socket:
    return trusting(before).wrap_socket(connect(before.https_port), server_hostname="localhost")


@contextmanager
def client(before: Proxy, source: str = "127.0.0.1", timeout_s: float = 30) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(verify=trusting(before), local_address=source)
    url = f"https://localhost:{before.https_port}"
    with httpx.Client(base_url=url, transport=transport, trust_env=False, timeout=timeout_s) as http:
        yield http


def client_hello() -> bytes:
    """The first message of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def silent_connections(before: Proxy) -> dict[str, socket.socket]:
    """A connection for each point before a whole request at which a client can fall silent."""
    hello = client_hello()
    found = {"no byte of a handshake": connect(before.https_port)}
    found["half a ClientHello"] = connect(before.https_port)
    found["half a ClientHello"].sendall(hello[: len(hello) // 2])
    found["a ClientHello alone"] = connect(before.https_port)
    found["a ClientHello alone"].sendall(hello)
    found["a handshake alone"] = secure(before)
    found["half a head by TLS"] = secure(before)
    found["half a head by TLS"].sendall(_HEAD)
    found["nothing by HTTP"] = connect(before.http_port)
    found["half a head by HTTP"] = connect(before.http_port)
    found["half a head by HTTP"].sendall(_HEAD)
    return found


def closed_after_s(one: socket.socket, limit_s: float) -> float:
    """Seconds until the other side ends the connection; `limit_s` or more where it does not."""
    begun = time.monotonic()
    with one, suppress(TimeoutError, ConnectionResetError, ssl.SSLError):
        while (left_s := limit_s - (time.monotonic() - begun)) > 0:
            one.settimeout(left_s)
            if not one.recv(65536):
                break
    return time.monotonic() - begun


def test_whoever_falls_silent_before_a_request_is_cut_off_after_ten_seconds(running_proxy: Proxy) -> None:
    silent = silent_connections(running_proxy)
    with ThreadPoolExecutor(len(silent)) as pool:
        ended = {name: pool.submit(closed_after_s, one, CUT_OFF_S + _SPARE_S) for name, one in silent.items()}
    assert {name for name, end in ended.items() if end.result() >= CUT_OFF_S + _SPARE_S} == set()


def test_an_upload_an_event_stream_and_a_long_poll_may_be_silent_for_longer(running_proxy: Proxy) -> None:
    with client(running_proxy) as http, client(running_proxy) as watching, client(running_proxy) as polling:
        job = http.post("/v1/jobs", json={"size_bytes": 2000}).json()

        def halting() -> Iterator[bytes]:
            yield bytes(1000)
            time.sleep(CUT_OFF_S + 2)
            yield bytes(1000)

        def states() -> list[Any]:
            """The job's states until it ends: what is uploaded is no song."""
            url, accept = f"/v1/jobs/{job['id']}", {"accept": "text/event-stream"}
            with watching.stream("GET", url, headers=accept) as stream:
                return [json.loads(line[6:])["state"] for line in stream.iter_lines() if line.startswith("data: ")]

        with ThreadPoolExecutor(3) as pool:
            events = pool.submit(states)
            poll = pool.submit(polling.get, f"/v1/jobs/{job['id']}", headers={"prefer": "wait=60"})
            headers = {"content-length": "2000"}
            sent = http.put(f"/v1/jobs/{job['id']}/audio", content=halting(), headers=headers)
        assert sent.status_code in (202, 422), sent.text
        assert poll.result().status_code == 200
        assert events.result()[-1] == "failed"


def test_a_large_upload_and_its_answer_pass_whole(running_proxy: Proxy) -> None:
    with client(running_proxy, timeout_s=60) as http:
        size_bytes = 64 * 1024 * 1024
        job = http.post("/v1/jobs", json={"size_bytes": size_bytes + 1}).json()
        song = bytes(1024 * 1024)
        headers = {"content-length": str(size_bytes), "upload-offset": "0"}
        sent = http.put(f"/v1/jobs/{job['id']}/audio", content=(song for _ in range(64)), headers=headers)
        assert sent.is_success, sent.text
        assert http.get(f"/v1/jobs/{job['id']}").json()["upload"]["offset_bytes"] == size_bytes
        http.delete(f"/v1/jobs/{job['id']}")


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("port", ["https_port", "http_port"])
def test_a_network_that_takes_all_it_can_get_shuts_no_other_out(running_proxy: Proxy, port: str) -> None:
    with ExitStack() as cleanup:
        for _ in range(_PLACES + 500):
            with suppress(ConnectionResetError):  # refused at once
                cleanup.callback(connect(getattr(running_proxy, port), ONE).close)
        with client(running_proxy, ANOTHER, timeout_s=8) as http:
            assert http.get("/v1/options").status_code == 200
        plain = httpx.HTTPTransport(local_address=ANOTHER)
        with httpx.Client(transport=plain, timeout=8, trust_env=False) as http:
            assert http.get(f"http://localhost:{running_proxy.http_port}/").status_code == 301


def test_p30_the_proxy_counts_networks_by_a_key_of_each_start_and_keeps_no_address(tmp_path: Path) -> None:
    first, second = (_slot_of(tmp_path, ["127.0.2.2", "127.0.2.9", "127.0.2.11"]) for _ in range(2))
    assert len(first) == 4
    assert first != second


def _slot_of(folder: Path, addresses: list[str]) -> str:
    """The key in the proxy's table that connections from all of the addresses count under, by a control socket that
    only tests have."""
    control, more = folder / "control", folder / "control.cfg"
    more.write_text(f"global\n  stats socket {control}\n")
    with proxy(folder, 9, more=[more]) as before, ExitStack() as open_ones:
        for address in addresses:
            open_ones.enter_context(connect(before.https_port, address))
        give_up_at = time.monotonic() + 10
        while time.monotonic() < give_up_at:
            with socket.socket(socket.AF_UNIX) as asked:
                asked.connect(str(control))
                asked.sendall(b"show table networks\n")
                said = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
            if found := re.search(rf"key=(\w+) .*conn_cur={len(addresses)}$", said, re.M):
                return found[1].lower()
            time.sleep(0.05)
        raise AssertionError(said)


def test_the_configuration_is_valid_without_a_warning(running_proxy: Proxy) -> None:
    command = [whole_program(), "-c", "-f", str(CONFIGURATION)]
    checked = subprocess.run(
        command, env=environment_of(running_proxy, 9), capture_output=True, text=True, timeout=30, check=False
    )
    assert checked.returncode == 0
    assert "WARNING" not in checked.stdout + checked.stderr
