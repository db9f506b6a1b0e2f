"""SWEEP: P01, P02, P04, P13, P18, P19, P21, P22, P25, P26, P28, P67. Nothing of a person or their music is left
anywhere, and the same search finds plenty where the guards are off."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.privacy.canary import CanarySearch, forms, word
from tests.privacy.sweep import IN_THE_FILE, Drive, Sweep, swept

LIVE_AUDIO = "a job that is being rendered"


@pytest.mark.timeout(400)
def test_p01_p02_p03_p04_p13_p18_p19_p21_p22_p25_p26_p28_p33_p67_nothing_is_left_of_a_person_or_their_music(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with swept(tmp_path, monkeypatch) as sweep, sweep.client() as http:
        drive = Drive(sweep, http)
        drive.sign_in()
        drive.strange_requests()
        drive.success()
        drive.undecodable()
        drive.too_large()
        drive.disk_full()
        drive.too_many()
        drive.broken()
        during = _while_a_job_lives(sweep, drive)
        drive.fallback()
        drive.worker_timeout()
        drive.killed_router()
        drive.sign_out()
        drive.sign_in()
        drive.erase()
        assert during == []
        assert list(sweep.everywhere()) == []
        _p13_p67_one_song_for_each_attempt_and_nothing_of_the_person(sweep)
        assert (sweep.log_dir / next(sweep.log_dir.iterdir())).stat().st_size > 1000, "the log was written"
        assert not [path for path in tmp_path.rglob("core*") if path.is_file()]


def _while_a_job_lives(sweep: Sweep, drive: Drive) -> list[object]:
    job_id = drive.send()
    drive.until(job_id, "running", "mastered")
    found = list(sweep.everywhere())
    drive.mastered(job_id)
    return list(found)


def _p13_p67_one_song_for_each_attempt_and_nothing_of_the_person(sweep: Sweep) -> None:
    requests = b"".join(wire.requests for wire in sweep.wires)
    carried = requests.count(sweep.canaries["samples"])
    assert carried > 0, "the recorder saw the songs go to the workers"
    assert carried <= sweep.attempts
    hits = {hit.canary for hit in CanarySearch(sweep.canaries).within("requests", requests)}
    assert hits <= IN_THE_FILE


@pytest.mark.timeout(200)
def test_the_same_search_hits_where_the_guards_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with swept(tmp_path, monkeypatch, "tests.privacy.leaky_router") as sweep, sweep.client() as http:
        drive = Drive(sweep, http)
        drive.sign_in()
        drive.strange_requests()
        drive.undecodable()
        drive.broken()
        for worker in sweep.running.workers:
            worker.freeze()  # the songs stay where they are while they are looked for
        for kind in ("wav", "mp3", "ogg"):
            drive.send(kind)
        found = list(sweep.everywhere())
    missed = set(sweep.canaries) - {hit.canary for hit in found}
    assert missed == set()
    assert len({(hit.canary, hit.form) for hit in found}) >= len(sweep.canaries)


def test_a_canary_is_found_in_every_form_it_is_looked_for() -> None:
    canary = word("test").encode()
    search = CanarySearch({"test": canary})
    for form, written in forms(canary).items():
        assert form in {hit.form for hit in search.within("here", b"before " + written + b" after")}
    assert list(search.within("here", word("another").encode())) == []
