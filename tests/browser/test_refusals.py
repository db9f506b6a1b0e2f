"""What goes wrong is said in a sentence, with what to do; nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, expect

from tests.browser.conftest import RATE_HZ, Opener, job_id, music, write_song
from tests.stack import Stack

pytestmark = pytest.mark.browser


def _spooled(running: Stack) -> list[Path]:
    return [path for path in running.spool_dir.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"]


def _submit(page: Page, song: Path) -> None:
    page.set_input_files("#file", song)
    page.click("#start")


def _text(page: Page, selector: str) -> str:
    return " ".join(page.locator(selector).inner_text().split())


def _expect_gone(page: Page, running: Stack, title: str, words: list[str]) -> None:
    expect(page.locator("#gone-title")).to_have_text(title)
    text = _text(page, "#gone-text")
    assert [word for word in words if word not in text] == [], text
    expect(page.locator("#retry")).to_be_hidden()
    assert _spooled(running) == []


def test_text_renamed_to_wav_is_called_what_it_is(open_page: Opener, running: Stack, tmp_path: Path) -> None:
    page, account = open_page()
    account.problems_expected = True
    renamed = tmp_path / "notes.wav"
    renamed.write_text("This is a shopping list, not a song.\n" * 50)
    _submit(page, renamed)
    _expect_gone(page, running, "Not an audio format we can read", ["Send WAV, AIFF, FLAC"])


def test_samples_that_are_no_numbers_are_refused_with_a_sentence(
    open_page: Opener, running: Stack, tmp_path: Path
) -> None:
    page, account = open_page()
    account.problems_expected = True
    samples = music(3)
    samples[RATE_HZ] = np.nan
    broken = tmp_path / "broken.wav"
    soundfile.write(broken, samples, RATE_HZ, subtype="FLOAT")
    _submit(page, broken)
    _expect_gone(page, running, "The audio holds invalid samples", ["xport"])


def test_a_truncated_flac_is_refused_and_the_page_takes_another_song(
    open_page: Opener, running: Stack, tmp_path: Path, song: Path
) -> None:
    page, account = open_page()
    account.problems_expected = True
    cut = tmp_path / "cut.flac"
    cut.write_bytes(song.read_bytes()[: song.stat().st_size // 2])
    _submit(page, cut)
    _expect_gone(page, running, "The audio is cut short", ["whole file"])
    page.click("#restart")
    expect(page.locator("#chosen")).to_have_text("Drop a song here")


def test_an_empty_file_is_refused_before_a_byte_moves(open_page: Opener, tmp_path: Path) -> None:
    page, account = open_page()
    empty = tmp_path / "empty.wav"
    empty.touch()
    _submit(page, empty)
    expect(page.get_by_role("alert")).to_contain_text("0 bytes")
    assert [request.url for request in account.requests if request.method != "GET"] == []


def test_a_file_over_the_limit_is_refused_before_a_byte_moves_with_both_sizes(
    open_page: Opener, tmp_path: Path
) -> None:
    page, account = open_page()
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(600 * 2**20)
    _submit(page, large)
    expect(page.get_by_role("alert")).to_contain_text("600 MiB")
    expect(page.get_by_role("alert")).to_contain_text("512 MiB")
    assert [request.url for request in account.requests if request.method != "GET"] == []


def test_settings_the_service_refuses_leave_the_form_as_it_was(open_page: Opener, song: Path) -> None:
    page, account = open_page()
    account.problems_expected = True
    page.get_by_text("Fine tuning").click()
    page.fill("#loudness", "-50")
    _submit(page, song)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("loudness_lufs")
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator("#chosen")).to_have_text(song.name)


def test_starting_without_a_song_says_what_to_do(open_page: Opener) -> None:
    page, _ = open_page()
    page.click("#start")
    expect(page.get_by_role("alert")).to_contain_text("choose a file")


def test_a_service_out_of_reach_is_said_and_tried_again_on_request(
    open_page: Opener, running: Stack, song: Path
) -> None:
    page, account = open_page()
    account.problems_expected = True
    page.context.set_offline(True)
    _submit(page, song)
    expect(page.get_by_role("alert")).to_contain_text("can’t be reached")
    page.context.set_offline(False)
    page.click("#start")
    expect(page.locator("#choose")).to_be_hidden()
    httpx.delete(f"{running.url}/v1/jobs/{job_id(page)}").raise_for_status()


def test_an_answer_that_is_not_ours_is_a_sentence_too(open_page: Opener, song: Path) -> None:
    page, account = open_page()
    account.problems_expected = True
    page.route("**/v1/jobs", lambda route: route.fulfill(status=502, body="<html>Bad Gateway</html>"))
    _submit(page, song)
    expect(page.get_by_role("alert")).to_contain_text("HTTP 502")


def test_a_job_cancelled_while_it_waits_leaves_nothing(open_page: Opener, running: Stack, tmp_path: Path) -> None:
    page, _ = open_page()
    running.workers[0].freeze()
    try:
        _submit(page, write_song(tmp_path / "long.wav", 60))
        expect(page.locator("#work-title")).not_to_have_text("Uploading")
        page.click("#cancel")
        expect(page.locator("#gone-title")).to_have_text("Cancelled and deleted")
        expect(page.locator("#gone-facts")).to_contain_text("key was destroyed at")
    finally:
        running.workers[0].thaw()
    assert _spooled(running) == []


def test_a_master_whose_time_is_over_is_called_deleted_after_a_reload(open_page: Opener, running: Stack) -> None:
    page, account = open_page()
    account.problems_expected = True
    job = httpx.post(f"{running.url}/v1/jobs", json={}).json()["id"]
    httpx.delete(f"{running.url}/v1/jobs/{job}").raise_for_status()
    page.evaluate("job => sessionStorage.setItem('trip', JSON.stringify({job, name: 'a.wav', sizeBytes: 1}))", job)
    page.reload()
    expect(page.locator("#gone")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('trip')") is None
