"""Consent over HTTP, and a store that is lost under a running service."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import warm_start
from tests.api import Api
from tests.songs import demo
from tests.stack import Stack, stack


def router_command(running: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    folders = {"ROUTER_STATE_DIR": str(running.folder / "state"), "ROUTER_RAM_DIR": str(running.ram_dir)}
    return warm_start.run("router", ["accounts", *arguments], folders)


def test_consent_is_given_taken_back_and_fails_closed_when_its_record_is_lost(tmp_path: Path) -> None:
    with stack(tmp_path, workers=0) as running, Api(running.url) as api:
        assert api.http.get("/v1/account/consent").json()["managed_only"] is False
        assert api.http.put("/v1/account/consent", json={"managed_only": True}).json()["managed_only"] is True
        assert api.create()["managed_only"] is True
        assert api.http.put("/v1/account/consent", json={"managed_only": False}).json()["managed_only"] is False
        assert api.create()["managed_only"] is False
        assert api.create(managed_only=True)["managed_only"] is True
        running.router.kill()
        for file in (tmp_path / "state").iterdir():
            file.unlink()
        running.restart_router()
        assert api.create()["managed_only"] is True
        assert api.http.get("/v1/options").json()["account"]["managed_only"] is True
        status = router_command(running, "status")
        assert (status.returncode, "lost" in status.stdout) == (1, True)
        assert router_command(running, "confirm").returncode == 0
        assert api.create()["managed_only"] is False
        assert router_command(running, "status").returncode == 0


def test_the_days_share_of_audio_is_kept_to(tmp_path: Path) -> None:
    demo_10_s = demo(tmp_path / "song.wav", 10).read_bytes()
    with stack(tmp_path, workers=0, settings={"daily_audio_s_per_account": 15}) as running, Api(running.url) as api:
        assert api.upload(api.create()["id"], demo_10_s).status_code == 202
        refused = api.upload(api.create()["id"], demo_10_s)
        assert (refused.status_code, refused.json()["code"]) == (429, "daily_quota")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
