"""A reference recording goes in beside the song, shapes the master, and is gone with the song."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mastering.engine.demo import demo_song
from tests.api import Api
from tests.songs import RATE_HZ, demo
from tests.stack import Stack


@pytest.fixture(scope="module")
def running(shared_stack: Stack) -> Stack:
    return shared_stack


def dark_reference(path: Path) -> Path:
    """The demo song with its treble rolled off by a short moving average."""
    song = demo_song(RATE_HZ)[:, : 20 * RATE_HZ]
    dark = np.stack([np.convolve(channel, np.ones(12) / 12, mode="same") for channel in song])
    sf.write(path, dark.T, RATE_HZ, subtype="PCM_16")
    return path


def treble_db(api: Api, job_id: str, when: str) -> float:
    bands = api.show(job_id)["report"][when]["spectrum"]
    levels = [min(bands, key=lambda band: abs(band["centre_hz"] - hz))["mid_db"] for hz in (8000, 1000)]
    return float(levels[0] - levels[1])


def test_a_dark_reference_makes_a_darker_master_and_leaves_nothing(running: Stack, tmp_path: Path) -> None:
    song, reference = demo(tmp_path / "song.wav", 20), dark_reference(tmp_path / "reference.wav")
    with Api(running.url) as api:
        job = api.create(amount_percent=100)
        sent = api.http.put(f"/v1/jobs/{job['id']}/references/1", content=reference.read_bytes())
        assert (sent.status_code, sent.json()["references"]) == (200, [1])
        assert api.upload(job["id"], song).status_code == 202
        api.mastered(job["id"])
        assert treble_db(api, job["id"], "after") < treble_db(api, job["id"], "before") - 3.0
        files = [path for path in running.spool_dir.glob("*/*") if path.is_file()]
        assert len(files) == len(list((running.ram_dir / "keys").iterdir())) == 1, "the master alone"
        api.http.delete(f"/v1/jobs/{job['id']}")


def test_a_reference_that_is_no_audio_is_refused_and_the_job_goes_on(running: Stack, tmp_path: Path) -> None:
    with Api(running.url) as api:
        job = api.create()
        refused = api.http.put(f"/v1/jobs/{job['id']}/references/1", content=b"no song at all" * 100)
        assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_format")
        assert refused.json()["detail"].startswith("Reference 1:")
        assert api.show(job["id"])["references"] == []
        assert api.http.put(f"/v1/jobs/{job['id']}/references/9", content=b"x").status_code in (400, 422)
        assert api.upload(job["id"], demo(tmp_path / "song.wav", 5)).status_code == 202
        late = api.http.put(f"/v1/jobs/{job['id']}/references/1", content=b"x")
        assert (late.status_code, late.json()["code"]) == (409, "not_ready")
        api.http.delete(f"/v1/jobs/{job['id']}")


def test_the_same_number_replaces_a_reference(running: Stack, tmp_path: Path) -> None:
    reference = demo(tmp_path / "reference.wav", 5).read_bytes()
    with Api(running.url) as api:
        job = api.create()
        for _ in range(2):
            sent = api.http.put(f"/v1/jobs/{job['id']}/references/2", content=reference)
            assert sent.json()["references"] == [2]
        assert len([path for path in running.spool_dir.glob("*/*") if path.is_file()]) == 1
        api.http.delete(f"/v1/jobs/{job['id']}")
        assert [path for path in running.spool_dir.glob("*/*") if path.is_file()] == []
