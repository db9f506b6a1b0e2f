"""A request's head has an end, and a long body is no head."""

from __future__ import annotations

import socket
from pathlib import Path

from router.connections import MAX_HEAD_BYTES
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
