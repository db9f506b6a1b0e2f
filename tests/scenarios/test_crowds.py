"""Strangers who only connect, or send a request's head for ever, keep nobody out: with and without the proxy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.api import Api
from tests.proxied import proxy
from tests.songs import demo
from tests.stack import stack

STRANGERS = 400
_HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


@contextmanager
def crowd(port: int, tls: ssl.SSLContext | None = None, size: int = STRANGERS) -> Iterator[list[socket.socket]]:
    """Open connections whose request heads never end."""
    with ExitStack() as cleanup:
        strangers = []
        for _ in range(size):
            plain = socket.create_connection(("127.0.0.1", port), timeout=20)
            one = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
            cleanup.callback(one.close)
            one.sendall(_HEAD)
            strangers.append(one)
        yield strangers


def nag(strangers: list[socket.socket]) -> int:
    """Each sends one byte more. How many connections took it."""
    taken = 0
    for one in strangers:
        try:
            one.sendall(b"x")
        except OSError:
            continue
        taken += 1
    return taken


def test_four_hundred_slow_heads_do_not_stop_an_upload(tmp_path: Path) -> None:
    song = demo(tmp_path / "song.wav", 10)
    with stack(tmp_path) as running, crowd(int(running.url.rpartition(":")[2])) as strangers, Api(running.url) as api:
        job = api.create(outputs=["wav16"])
        assert nag(strangers) == STRANGERS
        assert api.upload(job["id"], song.read_bytes()).status_code == 202
        nag(strangers)
        assert api.mastered(job["id"])["state"] == "mastered"
        assert "Traceback" not in running.router.said()


def test_four_hundred_slow_heads_before_the_proxy_do_not_stop_an_upload(tmp_path: Path) -> None:
    song = demo(tmp_path / "song.wav", 10)
    with stack(tmp_path) as running, proxy(tmp_path, int(running.url.rpartition(":")[2])) as before:
        trusting = ssl.create_default_context(cafile=str(before.certificate))
        with crowd(before.https_port, trusting) as strangers:
            url = f"https://localhost:{before.https_port}"
            with httpx.Client(base_url=url, verify=trusting, trust_env=False, timeout=60) as http:
                job = http.post("/v1/jobs", json={"outputs": ["wav16"]}).json()
                nag(strangers)
                assert http.put(f"/v1/jobs/{job['id']}/audio", content=song.read_bytes()).status_code == 202
                for _ in range(3):  # each answer is the job's next state: running, mastered
                    job = http.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=60"}).json()
                    if job["state"] == "mastered":
                        break
                assert job["state"] == "mastered"


def test_more_strangers_than_descriptors_leave_room_for_an_upload_and_no_traceback(tmp_path: Path) -> None:
    descriptors = 256
    with stack(tmp_path, descriptors=descriptors) as running:
        port = int(running.url.rpartition(":")[2])
        with crowd(port, size=2 * descriptors), Api(running.url) as api:
            job = api.create(outputs=["wav16"], size_bytes=300_000)
            assert api.upload(job["id"], bytes(200_000)).status_code == 202
            assert api.show(job["id"])["upload"]["offset_bytes"] == 200_000
        said = running.router.said()
        assert "Traceback" not in said
        assert len(said) < 20_000
