"""SWEEP, P13 to P15, P65, P67: a song that goes to a Space leaves nothing there either, and nothing of whose it was;
and not a byte goes there where somebody asks for our own workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.privacy.canary import CanarySearch
from tests.privacy.sweep import IN_THE_FILE, Drive, Sweep, swept


@pytest.mark.timeout(400)
def test_p13_p14_p15_p39_p65_p67_a_space_gets_a_song_when_it_may_and_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with swept(tmp_path, monkeypatch, workers=1, space=True) as sweep, sweep.client() as http:
        drive = Drive(sweep, http)
        drive.sign_in()
        drive.fallback()  # the only worker dies with the song
        drive.mastered(drive.send("ogg"))
        drive.undecodable()
        named = http.get("/privacy.json").json()["tiers"]
        assert [place["tier"] for place in named] == ["managed", "cpu_space"]
        _one_song_for_each_attempt_and_nothing_of_the_person(sweep)
        carried = _songs_to_the_space(sweep)
        assert http.put("/v1/account/consent", json={"managed_only": True}).status_code == 200
        asked = http.post("/v1/jobs", json={})
        if asked.status_code == 201:  # it may be taken in, to wait for a worker
            http.put(f"/v1/jobs/{asked.json()['id']}/audio", content=drive.songs["wav"])
            http.delete(f"/v1/jobs/{asked.json()['id']}")
        else:
            assert asked.status_code == 503
        assert _songs_to_the_space(sweep) == carried
        assert list(sweep.everywhere()) == []


def _one_song_for_each_attempt_and_nothing_of_the_person(sweep: Sweep) -> None:
    to_space = sweep.wires[-1].requests
    assert sweep.canaries["samples"] in to_space, "the recorder saw the song go to the Space"
    assert to_space.count(sweep.canaries["samples"]) <= sweep.attempts
    assert {hit.canary for hit in CanarySearch(sweep.canaries).within("requests", to_space)} <= IN_THE_FILE


def _songs_to_the_space(sweep: Sweep) -> int:
    return sweep.wires[-1].requests.count(b"PUT ")
