"""What a start does to the process, by its settings."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import httpcore
import pytest
from fastapi import FastAPI

from router.app import server, startup
from router.core import threads
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.http.connection import connections_for

SCRIPT = """
import resource, sys
from router.app import startup
from router.core.settings import RouterSettings
from router.http.connection import RouterConnection, connections_for
startup.prepare_process(RouterSettings())
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == hard, RouterConnection.most_open == connections_for(soft), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_start_takes_all_the_descriptors_it_may_have_and_no_core_dump() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = ["prlimit", f"--nofile={min(soft, 256)}:{hard}", sys.executable, "-c", SCRIPT]
    told = subprocess.run(limited, check=True, capture_output=True, text=True).stdout
    assert told == "True True (0, 0)\n"


@pytest.mark.parametrize(("descriptors", "connections"), [(0, 1), (64 + 3, 1), (64 + 300, 100), (10**6, 20_000)])
def test_connections_are_as_many_as_their_descriptors_allow(descriptors: int, connections: int) -> None:
    assert connections_for(descriptors) == connections


def test_a_start_gives_the_pools_their_sizes_and_large_reads_to_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    for pool in threads.POOLS:
        monkeypatch.setattr(pool, "threads", pool.threads)
    monkeypatch.setattr(httpcore.AsyncHTTP11Connection, "READ_NUM_BYTES", 65_536)
    before = os.umask(0o022)
    try:
        startup.prepare_router(RouterSettings(body_threads=3, worker_threads=5))
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)
    assert (threads.BODY_POOL.threads, threads.WORKER_POOL.threads) == (3, 5)
    assert httpcore.AsyncHTTP11Connection.READ_NUM_BYTES == 256 * 1024


def test_the_secret_of_a_boot_is_the_same_for_every_start(tmp_path: Path) -> None:
    secret = startup.boot_secret(tmp_path)
    assert len(secret) == 32
    assert startup.boot_secret(tmp_path) == secret


def test_no_server_of_ours_speaks_websockets() -> None:
    """With the package installed, a page anywhere could keep a connection's place for ever by an Upgrade."""
    assert server._config(FastAPI()).ws == "none"


@pytest.mark.parametrize("name", ["ram_dir", "state_dir", "spool_dir", "log_dir"])
@pytest.mark.parametrize("kind", ["a file", "below a file", "not ours", "nowhere"])
def test_a_folder_of_no_use_is_one_line_that_names_its_setting(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    path = {"a file": file, "below a file": file / "x", "not ours": folder, "nowhere": Path("/proc/nowhere")}[kind]
    file.touch()
    monkeypatch.setattr(os, "access", lambda path, _: path != folder)  # as root, who runs many a test, may everything
    folders = {each: tmp_path / each for each in ("ram_dir", "state_dir", "spool_dir", "log_dir")}
    before = os.umask(0o022)
    try:
        startup.check_folders(RouterSettings(**folders))
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders.values())
        with pytest.raises(CommandError) as told:
            startup.check_folders(RouterSettings(**{**folders, name: path}))
    finally:
        os.umask(before)
    assert f"setting {name}" in str(told.value)
    assert str(path) not in str(told.value)


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [("no.such.host.invalid", 0, "no address"), ("192.0.2.1", 0, "no address"), ("127.0.0.1", None, "is taken")],
)
def test_an_address_that_cannot_be_listened_on_is_told_by_its_cause(host: str, port: int | None, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CommandError, match=words):
        server._listen(host, taken.getsockname()[1] if port is None else port)
