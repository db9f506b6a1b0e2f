"""The whole trip as a person makes it: drop, watch, listen, read, download, delete; by mouse and by keyboard.

In one long file, so that one running stack and one browser serve all of it.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import (
    NAME,
    RATE_HZ,
    RENDER_MS,
    SONG_S,
    Account,
    Opener,
    job_id,
    master,
    wait_for_master,
    write_song,
)
from tests.browser.cutting_proxy import cutting_proxy
from tests.stack import Stack

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "build" / "browser"
AXE_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

LISTEN_IN = """
(() => {
  window.heard = {gains: [], starts: [], analyser: null, context: null};
  const createGain = AudioContext.prototype.createGain;
  AudioContext.prototype.createGain = function () {
    const node = createGain.call(this);
    heard.context = this;
    heard.gains.push(node);
    if (!heard.analyser) heard.analyser = this.createAnalyser();
    const connect = node.connect.bind(node);
    node.connect = (to) => { connect(heard.analyser); return connect(to); };
    return node;
  };
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (...when) {
    heard.starts.push(when);
    return start.apply(this, when);
  };
})();
"""
"""Taps the page's audio graph: the gains in the order original, master; every start; what reaches the loudspeaker."""

BLOCK_STORAGE = """
for (const name of ["sessionStorage", "localStorage"])
  Object.defineProperty(window, name, {get() { throw new DOMException("blocked", "SecurityError"); }});
"""


def eventually(read: Callable[[], Any], accept: Callable[[Any], bool], page: Page, limit_s: float = 10) -> Any:
    """What `read` gives once it is accepted; fails with the last reading when it never is."""
    give_up_at = time.monotonic() + limit_s
    while not accept(value := read()):
        assert time.monotonic() < give_up_at, f"still {value}"
        page.wait_for_timeout(20)
    return value


def _gains(page: Page) -> list[float]:
    return [float(gain) for gain in page.evaluate("heard.gains.map(node => node.gain.value)")]


def _rms(page: Page) -> float:
    return float(
        page.evaluate(
            """() => {
              const samples = new Float32Array(heard.analyser.fftSize);
              heard.analyser.getFloatTimeDomainData(samples);
              return Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length);
            }"""
        )
    )


def _report(running: Stack, page: Page) -> dict[str, Any]:
    report: dict[str, Any] = httpx.get(f"{running.url}/v1/jobs/{job_id(page)}").json()["report"]
    return report


def _download(page: Page, title: str) -> tuple[str, bytes]:
    with page.expect_download() as caught:
        page.locator("#downloads a", has_text=title).click()
    return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()


def _violations(page: Page) -> list[str]:
    found = Axe().run(page, options={**AXE_RULES, "resultTypes": ["violations"]}).response["violations"]
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes']]}" for one in found]


def _width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def _shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def _assert_name_stayed_here(account: Account) -> None:
    """The song's name in no address, header or text body, raw or encoded."""
    traces = [NAME, quote(NAME), json.dumps(NAME)[1:-1], "canary"]
    for request in account.requests:
        if request.url.startswith("blob:"):
            continue
        body = request.post_data_buffer or b""
        seen = request.url + json.dumps(request.all_headers(), ensure_ascii=False) + body[:4096].decode("latin-1")
        assert [trace for trace in traces if trace in seen] == [], request.url


def test_a_song_becomes_a_master_that_can_be_heard_read_saved_and_deleted(
    open_page: Opener, running: Stack, song: Path
) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    page, account = open_page(before=LISTEN_IN)
    page.set_input_files("#file", song)
    expect(page.locator("#chosen")).to_have_text(song.name)
    page.click("#start")
    expect(page.locator("#live")).to_contain_text("Managed", timeout=RENDER_MS)
    expect(page.locator("#reason")).not_to_be_empty()
    wait_for_master(page)
    expect(page.locator("#result-name")).to_have_text(song.name)
    expect(page.locator("#countdown")).to_contain_text("Deleted in 5")
    expect(page.locator("#numbers tbody tr").first).to_contain_text("−14.0")
    expect(page.locator("#checks tbody tr").first).to_contain_text("−14.0")
    expect(page.locator("#changes li").first).to_be_visible()
    expect(page.locator(".track")).to_have_count(2)
    _shoot(page, "result-1280-light")

    for title, extension in (("24 bit", "wav"), ("FLAC", "flac"), ("MP3", "mp3")):
        name, content = _download(page, title)
        assert name == f"{NAME} (master).{extension}"
        facts = soundfile.info(io.BytesIO(content))
        assert facts.samplerate == RATE_HZ
        assert facts.channels == 2
        slack = 2400 if extension == "mp3" else 0
        assert abs(facts.frames - SONG_S * RATE_HZ) <= slack
    assert _download(page, "16 bit")[0] == f"{NAME} (master, 16-bit).wav"

    job = job_id(page)
    page.click("#delete")
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    expect(page.locator("#result")).to_be_visible()
    page.click("#delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete now").click()
    expect(page.locator("#gone-title")).to_have_text("Deleted")
    destroyed = [one.get_attribute("datetime") or "" for one in page.locator("#gone-facts time").all()]
    assert len(destroyed) == 2
    assert all(began <= datetime.fromisoformat(one) <= datetime.now(UTC) for one in destroyed)
    assert httpx.get(f"{running.url}/v1/jobs/{job}/outputs/flac").status_code == 410
    assert page.evaluate("sessionStorage.length") == 0
    _assert_name_stayed_here(account)


def test_a_and_b_play_on_one_clock_at_equal_loudness(open_page: Opener, running: Stack, song: Path) -> None:
    page, _ = open_page(before=LISTEN_IN)
    master(page, song)
    report = _report(running, page)
    louder_by_db = report["after"]["integrated_lufs"] - report["before"]["integrated_lufs"]
    assert louder_by_db > 3, "the song is too loud to show anything"

    page.click("#play")
    expect(page.locator("#play")).to_have_text("Pause")
    eventually(lambda: _rms(page), lambda rms: rms > 0.001, page)
    (when_a, from_a), (when_b, from_b) = page.evaluate("heard.starts")
    assert (when_a, from_a) == (when_b, from_b)
    original, mastered = _gains(page)
    assert original == 0
    assert 20 * math.log10(mastered) == pytest.approx(-louder_by_db, abs=0.01)

    page.keyboard.press("a")
    original, mastered = eventually(lambda: _gains(page), lambda gains: gains[1] == 0, page)
    assert original == pytest.approx(1)
    expect(page.locator("#side-a")).to_be_checked()
    eventually(lambda: _rms(page), lambda rms: rms > 0.001, page)

    page.get_by_label("Equal loudness").uncheck()
    page.locator("label[for=side-b]").click()
    assert eventually(lambda: _gains(page), lambda gains: gains[0] == 0 and gains[1] > 0.999, page) == [0, 1]
    page.keyboard.press("x")
    eventually(lambda: _gains(page), lambda gains: gains[1] == 0, page)
    assert len(page.evaluate("heard.starts")) == 2, "switching must not start anything anew"
    page.keyboard.press("p")
    expect(page.locator("#play")).to_have_text("Play")


def test_seeking_moves_both_sides_together(open_page: Opener, song: Path) -> None:
    page, _ = open_page(before=LISTEN_IN)
    master(page, song)
    page.locator("#seek").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#clock")).to_have_text("0:05 / 0:08")
    expect(page.locator("#seek")).to_have_attribute("aria-valuetext", "0:05 of 0:08")
    page.keyboard.press("p")
    eventually(lambda: page.evaluate("heard.starts.length"), lambda count: count == 2, page)
    assert page.evaluate("heard.starts.map(([, from]) => from)") == [5, 5]
    page.keyboard.press("p")
    page.locator("#play").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#clock")).to_have_text("0:00 / 0:08")


def test_recordings_that_a_decoder_shifted_are_brought_back_together(open_page: Opener) -> None:
    page, _ = open_page()
    measure = """async (lag) => {
      const script = document.querySelector('script[type=module]').src;
      const { lagFrames } = await import(script.replace('main.js', 'audio.js'));
      const make = (shift) => {
        const buffer = new AudioBuffer({length: 88200, sampleRate: 44100});
        const samples = buffer.getChannelData(0);
        let seed = 1;
        const noise = Array.from({length: 90000}, () => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5);
        samples.forEach((_, i) => { samples[i] = noise[i + 1500 - shift] * (shift ? 1.5 : 1); });
        return buffer;
      };
      return lagFrames(make(0), make(lag));
    }"""
    assert page.evaluate(measure, 1105) == 1105
    assert page.evaluate(measure, -529) == -529
    assert page.evaluate(measure, 0) == 0


def test_what_the_browser_cannot_decode_is_played_as_a_stream_and_said(open_page: Opener, song: Path) -> None:
    deaf = (
        "OfflineAudioContext.prototype.decodeAudioData = () => Promise.reject(new DOMException('no', 'EncodingError'))"
    )
    page, _ = open_page(before=deaf)
    master(page, song)
    expect(page.locator("#player-note")).to_contain_text("can’t decode your original")
    expect(page.locator("#sides")).to_be_hidden()
    page.click("#play")
    expect(page.locator("#clock")).to_have_text("0:01 / 0:08")
    page.locator("#seek").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#clock")).to_contain_text(re.compile("0:0[67] / 0:08"))


def test_after_a_reload_the_page_finds_its_master_again_and_plays_it_alone(open_page: Opener, song: Path) -> None:
    page, account = open_page()
    master(page, song)
    page.reload()
    expect(page.locator("#result-name")).to_have_text(song.name)
    expect(page.locator("#player-note")).to_contain_text("no longer has your original")
    expect(page.locator("#sides")).to_be_hidden()
    page.locator("#play:enabled").wait_for()
    assert _download(page, "FLAC")[0] == f"{NAME} (master).flac"
    page.click("#again")
    expect(page.get_by_role("alert")).to_contain_text("Choose the song once more")
    _assert_name_stayed_here(account)


def test_a_reload_in_the_middle_finds_the_job_again(open_page: Opener, running: Stack, tmp_path: Path) -> None:
    page, _ = open_page()
    running.workers[0].freeze()
    try:
        page.set_input_files("#file", write_song(tmp_path / "song.wav"))
        page.click("#start")
        expect(page.locator("#work-title")).not_to_have_text("Uploading")
        page.reload()
        expect(page.locator("#work-name")).to_have_text("song.wav")
    finally:
        running.workers[0].thaw()
    wait_for_master(page)


def test_another_setting_sends_the_song_again_by_itself(open_page: Opener, running: Stack, song: Path) -> None:
    page, account = open_page()
    master(page, song)
    first = job_id(page)
    page.click("#again")
    expect(page.locator("#chosen")).to_have_text(song.name)
    page.get_by_label("Apple Music").check()
    page.click("#start")
    expect(page.locator("#numbers tbody tr").first).to_contain_text("−16.0", timeout=RENDER_MS)
    assert first != job_id(page)
    assert httpx.get(f"{running.url}/v1/jobs/{first}/outputs/flac").status_code == 410
    _assert_name_stayed_here(account)


def test_a_refined_plan_can_be_asked_for_and_says_what_it_found(open_page: Opener, running: Stack, song: Path) -> None:
    page, _ = open_page()
    page.set_input_files("#file", song)
    page.get_by_text("Fine tuning").click()
    assert page.get_by_label("How the settings are found").input_value() == "quick"
    page.get_by_label("How the settings are found").select_option("Refined")
    assert _violations(page) == []
    page.click("#start")
    wait_for_master(page)
    assert httpx.get(f"{running.url}/v1/jobs/{job_id(page)}").json()["settings"]["effort"] == "fit"
    expect(page.locator("#flags")).to_contain_text("refined")


def test_refined_can_not_be_chosen_where_no_tier_can_do_it_and_the_page_says_why(open_page: Opener) -> None:
    page, _ = open_page()
    reason = (
        "Not offered now: none of the tiers that are set up can do it. It needs torch: 'make setup-torch' on a worker's"
        " machine installs it; then start that anew."
    )

    def without_torch(route: Route) -> None:
        told = route.fetch().json()
        told["kinds"]["master"]["paces"]["fit"] |= {"offered": False, "reason": reason}
        route.fulfill(json=told)

    page.route("**/v1/options", without_torch)
    page.reload()
    page.get_by_text("Fine tuning").click()
    expect(page.locator("#effort option[value=fit]")).to_be_disabled()
    expect(page.locator("#effort-note")).to_have_text(f"Refined: {reason}")
    assert _violations(page) == []
    page.screenshot(path=SHOTS / "refined-not-offered.png", full_page=True)


def test_a_song_that_waits_says_that_no_worker_is_up_and_goes_on_when_one_is(
    open_page: Opener, running: Stack, song: Path
) -> None:
    page, _ = open_page()
    running.workers[0].freeze()
    try:
        page.set_input_files("#file", song)
        page.click("#start")
        expect(page.locator("#work-title")).to_have_text("Waiting for a tier", timeout=60_000)
        expect(page.locator("#reason")).to_have_text(
            re.compile(r"^No tier can take the job now \(Managed CPU workers: .*tried again in about \d+ s\.$"),
            timeout=60_000,
        )
        page.screenshot(path=SHOTS / "waiting-without-workers.png", full_page=True)
    finally:
        running.workers[0].thaw()
    wait_for_master(page)


def test_an_upload_cut_off_goes_on_where_it_stopped(open_page: Opener, running: Stack, tmp_path: Path) -> None:
    long = write_song(tmp_path / "long.wav", 20)
    size = long.stat().st_size
    with cutting_proxy(running.url, size * 2 // 5) as proxy:
        page, account = open_page(proxy.url)
        account.problems_expected = True
        page.set_input_files("#file", long)
        page.click("#start")
        wait_for_master(page)
        assert proxy.cuts >= 1
        puts = [request.all_headers() for request in account.requests if request.method == "PUT"]
        offsets = [int(headers.get("upload-offset", 0)) for headers in puts]
        assert len(offsets) >= 2
        assert offsets[0] == 0
        assert offsets[-1] > 0, "the whole song was sent again"
        expect(page.locator("#clock")).to_have_text("0:00 / 0:20")
        page.context.close()


def test_the_keyboard_alone_leads_from_the_song_to_the_player(open_page: Opener, song: Path) -> None:
    page, _ = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    page.set_input_files("#file", song)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("input[name=target]").nth(1)).to_be_checked()
    for _ in range(10):
        if page.evaluate("document.activeElement.id") == "start":
            break
        page.keyboard.press("Tab")
    expect(page.locator("#start")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#result-title")).to_be_focused(timeout=RENDER_MS)
    page.locator("#play:enabled").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("#play")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Pause")


def test_a_song_can_be_dropped_anywhere_on_the_page(open_page: Opener) -> None:
    page, _ = open_page()
    page.evaluate(
        """() => {
          const carried = new DataTransfer();
          carried.items.add(new File(['x'], 'dropped.flac'));
          const drop = new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true});
          document.body.dispatchEvent(drop);
          if (!drop.defaultPrevented) throw new Error('the browser would open the song');
        }"""
    )
    expect(page.locator("#chosen")).to_have_text("dropped.flac")


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (768, "light"), (1280, "dark")])
def test_every_view_is_accessible_and_never_scrolls_sideways(
    open_page: Opener, song: Path, width: int, scheme: str
) -> None:
    page, _ = open_page(width=width, scheme=scheme)
    for summary in page.locator("#choose summary").all():
        summary.click()
    page.click("#start")
    expect(page.get_by_role("alert")).to_be_visible()
    _shoot(page, f"choose-{width}-{scheme}")
    assert (_violations(page), _width(page)) == ([], width)
    page.set_input_files("#file", song)
    page.click("#start")
    page.locator("#work").wait_for()
    assert (_violations(page), _width(page)) == ([], width)
    wait_for_master(page)
    page.locator("#play:enabled").wait_for()
    _shoot(page, f"result-{width}-{scheme}")
    for summary in page.locator("#result summary").all():
        summary.click()
    assert (_violations(page), _width(page)) == ([], width)
    page.click("#delete")
    assert (_violations(page), _width(page)) == ([], width)
    page.get_by_role("dialog").get_by_role("button", name="Delete now").click()
    page.locator("#gone").wait_for()
    assert (_violations(page), _width(page)) == ([], width)


def test_the_accessibility_check_sees_a_fault_that_is_put_into_the_page(open_page: Opener) -> None:
    page, _ = open_page()
    page.evaluate("document.querySelector('main').append(document.createElement('input'), new Image())")
    assert [found.split(":")[0] for found in _violations(page)] == ["image-alt", "label"]


def test_blocked_storage_costs_nothing_but_the_memory_of_a_reload(open_page: Opener, song: Path) -> None:
    page, _ = open_page(before=BLOCK_STORAGE)
    master(page, song)
    expect(page.locator("#result-name")).to_have_text(song.name)
    page.click("#delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete now").click()
    expect(page.locator("#gone-title")).to_have_text("Deleted")


def test_the_page_sets_no_cookie_and_keeps_nothing_but_its_trip(open_page: Opener, song: Path) -> None:
    page, _ = open_page()
    master(page, song)
    assert page.context.cookies() == []
    assert page.evaluate("[Object.keys(sessionStorage), localStorage.length]") == [["trip"], 0]


def test_static_files_are_kept_for_ever_and_the_page_is_asked_for_again(running: Stack) -> None:
    with httpx.Client(base_url=running.url) as client:
        page = client.get("/")
        assert page.headers["cache-control"] == "no-cache"
        assert client.get("/", headers={"if-none-match": page.headers["etag"]}).status_code == 304
        sheet = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
        assert "immutable" in client.get(sheet).headers["cache-control"]
        old = sheet.split("/")
        old[2] = "0" * 12
        assert client.get("/".join(old)).headers["cache-control"] == "no-cache"
        missing = client.get("/".join([*old[:3], "..%2f..%2fpages.py"]))
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        plain = client.get(sheet, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.text == client.get(sheet).text


@pytest.mark.songs
def test_a_real_song_is_mastered_and_compared_on_the_page(open_page: Opener, running: Stack) -> None:
    folder = Path(os.environ.get("MASTERING_TEST_AUDIO", str(Path(__file__).parents[3] / "shared" / "audio")))
    real = folder / "vibe_ace.ogg"
    if not real.is_file():
        assert not (os.environ.get("CI") and folder.is_dir()), "the folder of songs is there, vibe_ace.ogg is not"
        pytest.skip("vibe_ace.ogg is not here: set MASTERING_TEST_AUDIO to the folder that holds it")
    page, _ = open_page(before=LISTEN_IN)
    master(page, real)
    report = _report(running, page)
    assert report["after"]["integrated_lufs"] == pytest.approx(-14, abs=0.1)
    assert report["after"]["true_peak_dbtp"] <= -1
    expect(page.locator(".track")).to_have_count(2)
    assert len(report["traces"]["gain_reduction_db"]) == 62
    assert report["traces"]["costs"] == [], "nobody waits for what is not shown"
    expect(page.locator("#course svg path.line")).to_have_count(2)
    expect(page.locator("#reduction svg path.taken")).to_have_count(1)
    assert _download(page, "FLAC")[0] == "vibe_ace (master).flac"
    page.click("#play")
    eventually(lambda: _rms(page), lambda rms: rms > 0.001, page)
    assert page.evaluate("heard.starts.map(([, from]) => from)") == [0, 0]
    _shoot(page, "real-song")
