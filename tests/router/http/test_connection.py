"""A request's head has an end, and a long body is no head."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from router.http.connection import MAX_HEAD_BYTES
from tests.api import Api
from tests.stack import stack


def test_a_head_without_end_is_cut_off_and_harms_nobody(tmp_path: Path) -> None:
    with stack(tmp_path, workers=0) as running, Api(running.url) as api:
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ")
            sent = 0
            try:
                for _ in range(1000):
                    stranger.sendall(b"x" * 16_384)
                    sent += 16_384
            except OSError:
                pass
            # What the sockets' buffers took does not count: the router has read little more than it allows.
            assert sent < 16 * 1024 * 1024
            assert sent >= MAX_HEAD_BYTES // 2
        assert api.http.get("/v1/options").status_code == 200
        job = api.create(size_bytes=300_000)
        assert api.upload(job["id"], bytes(200_000)).status_code == 202
        assert api.show(job["id"])["upload"]["offset_bytes"] == 200_000


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "GZIP,chunked", "deflate", "identity", "chunked;a=b"])
def test_a_body_in_another_transfer_coding_than_chunked_is_refused_with_the_reason(tmp_path: Path, coding: str) -> None:
    with stack(tmp_path, workers=0) as running:
        for lines in (coding, coding.replace(",", "\r\nTransfer-Encoding:")):
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: {lines}\r\n\r\n"
            answer = _answer_to(running.url, head.encode() + b"2\r\n{}\r\n0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
            assert b"content-type: application/problem+json\r\n" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "transfer_coding"


def test_chunks_are_taken_in_any_case_and_te_is_an_offer_that_harms_nobody(tmp_path: Path) -> None:
    with stack(tmp_path, workers=0) as running:
        for coding in ("chunked", "Chunked", "chunked\r\nTE: gzip"):
            head = "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            body = f"Transfer-Encoding: {coding}\r\nConnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
            assert _answer_to(running.url, (head + body).encode()).startswith(b"HTTP/1.1 201 Created\r\n")
        asked = (
            "GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nTE: gzip;q=0.5, trailers\r\nConnection: TE, close\r\n\r\n"
        )
        assert _answer_to(running.url, asked.encode()).startswith(b"HTTP/1.1 200 OK\r\n")


def _answer_to(url: str, request: bytes) -> bytes:
    """All that comes until the router ends the connection."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize("pause_s", [0.0, 0.2], ids=["at once", "a moment later"])
def test_a_song_that_asks_for_another_protocol_is_refused_with_the_reason(tmp_path: Path, pause_s: float) -> None:
    """As `curl --http2 -T` sends it. The parser takes what follows such a head for that protocol's."""
    with stack(tmp_path, workers=0) as running, Api(running.url) as api:
        job, body = api.create(size_bytes=300_000), bytes(300_000)
        head = (
            f"PUT /v1/jobs/{job['id']}/audio HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as client:
            client.sendall(head.encode())
            time.sleep(pause_s)
            with suppress(OSError):
                client.sendall(body)
            answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"without Upgrade" in answer
        asked = api.http.get(f"/v1/jobs/{job['id']}", headers={"connection": "upgrade", "upgrade": "h2c"})
        assert asked.json()["state"] == "received", "without a body it is as if it had not asked"
