"""The router's own workers: what they know of the router that started them."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from router.app import local_workers
from router.core.settings import RouterSettings
from tests.processes import children

SECRETS = ("ROUTER_OIDC_CLIENT_SECRET", "ROUTER_PEPPER", "ROUTER_HF_TOKEN", "HF_TOKEN")
WANTED = ("MASTERING_WORKER_CONCURRENCY", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TMPDIR", "PATH")


async def test_a_worker_knows_none_of_the_routers_secrets_and_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = RouterSettings(worker_secret=SecretStr("k" * 64))
    for name in SECRETS:
        monkeypatch.setenv(name, f"secret-of-{name}")
    values = {"MASTERING_WORKER_CONCURRENCY": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for name, value in {**values, "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    before = children(os.getpid())
    with local_workers.reserve_port() as reserved:
        async with local_workers.running_workers(settings, [reserved]):
            shown = await environment_of_a_worker(os.getpid(), before)
    assert not any(f"secret-of-{name}" in shown or f"{name}=" in shown for name in SECRETS)
    told = dict(pair.split("=", 1) for pair in shown.split("\0") if pair)
    assert set(WANTED) <= set(told)
    assert json.loads(told["MASTERING_WORKER_KEYS"]) == {"router": "k" * 64}


async def environment_of_a_worker(parent: int, before: set[int]) -> str:
    """Of the first new child that runs a worker, which soon closes its memory to others."""
    async with asyncio.timeout(30):
        while not (shown := [text for pid in children(parent) - before if (text := environment_of(pid))]):  # noqa: ASYNC110 — bounded
            await asyncio.sleep(0.005)
    return shown[0]


def environment_of(pid: int) -> str:
    """What a worker's process was started with; nothing of another one, or of one that is about to become a worker."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"mastering.worker" in command and b"exec_shim" not in command:
            return Path(f"/proc/{pid}/environ").read_text()
    return ""
