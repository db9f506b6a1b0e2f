"""P07: unreadable when its time is over, whatever the wall clock says, and also when nobody swept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from router.core import clock
from router.core.settings import RouterSettings
from router.spool.disk import Spool
from router.spool.port import BlobGone
from tests.api import Api
from tests.songs import demo
from tests.stack import ram, stack

YEAR_S = 365.25 * 86_400


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S])
async def test_a_wall_clock_that_jumps_a_year_moves_no_lifetime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    spool = Spool(tmp_path / "spool", tmp_path / "keys", 1 << 30)
    real = time.time
    born_s = clock.now()
    ref = await spool.reserve(5, born_s + 1.0)
    await spool.append(ref, 0, one(b"audio"), 5)
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert [chunk async for chunk in spool.read(ref)] == [b"audio"]
    gone_s = await _first_refusal(spool, ref, give_up_s=born_s + 5.0)
    assert gone_s - born_s == pytest.approx(1.0, abs=1.0)
    assert spool.expired() == [ref]


async def _first_refusal(spool: Spool, ref: str, give_up_s: float) -> float:
    while clock.now() < give_up_s:
        try:
            await spool.extent(ref)
        except BlobGone:
            return clock.now()
        await asyncio.sleep(0.01)
    raise AssertionError("it never went")


def test_no_longer_life_than_an_hour_can_be_configured() -> None:
    with pytest.raises(ValidationError):
        RouterSettings(output_ttl_s=3601)
    assert RouterSettings(output_ttl_s=3600).output_ttl_s == 3600


def test_a_master_whose_time_is_over_is_410_and_its_key_and_file_are_gone(tmp_path: Path) -> None:
    song = demo(tmp_path / "song.wav", 3)
    with stack(tmp_path, settings={"output_ttl_s": 12}) as running, Api(running.url) as api:
        assert ram() is not None
        job = api.mastered(api.send(song)["id"])
        address = f"/v1/jobs/{job['id']}/outputs/wav24"
        one_byte = {"range": "bytes=0-0"}  # a whole download could be cut off by the end of its time
        assert api.http.get(address, headers=one_byte).status_code == 206
        give_up = time.monotonic() + 40
        while api.http.get(address, headers=one_byte).status_code == 206 and time.monotonic() < give_up:
            time.sleep(0.2)
        assert api.http.get(address).json()["code"] == "gone"
        while list(running.spool_dir.glob("*/*")) and time.monotonic() < give_up:
            time.sleep(0.2)
        assert list(running.spool_dir.glob("*/*")) == []
        assert list((running.ram_dir / "keys").iterdir()) == []
