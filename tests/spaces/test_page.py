"""The Space's page in a real Chromium before a real Space, with real songs where there are any."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from mastering_space import upload
from tests.browser.conftest import NAME, RENDER_MS, Account, chromium, song
from tests.songs import real_song
from tests.space_process import SpaceProcess, until
from tests.spaces.test_the_life_of_a_job import files_left, memories

__all__ = ["chromium", "song"]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def space(cpu_space: SpaceProcess) -> SpaceProcess:
    return cpu_space


Opener = Callable[..., tuple[Page, Account]]


@pytest.fixture
def open_page(chromium: Browser, space: SpaceProcess) -> Iterator[Opener]:
    """Opens the page in a profile of its own; at the end nothing of it may have asked another origin or complained."""
    contexts, accounts = [], []

    def open_it(width: int = 1280, scheme: str = "light", url: str | None = None) -> tuple[Page, Account]:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        page, account = context.new_page(), Account(url or space.url)
        accounts.append(account)
        page.on("request", lambda request: account.requests.append(request))
        page.on("console", lambda m: account.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: account.complaints.append(str(error)))
        page.goto(f"{account.origin}/")
        page.locator("#amount-text", has_text="%").wait_for()
        return page, account

    yield open_it
    for context in contexts:
        context.close()
    for account in accounts:
        account.check()


def master(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    page.click("#start")
    page.locator("#result:visible, .notice.bad").first.wait_for(timeout=RENDER_MS)
    assert page.locator("#result").is_visible(), page.locator("#alert").inner_text()
    page.locator("#play:enabled").wait_for(timeout=60_000)


def check_accessibility(page: Page) -> None:
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert found.violations_count == 0, found.generate_report()


def test_a_dropped_song_becomes_a_master_that_only_the_browser_holds(
    open_page: Opener,
    space: SpaceProcess,
    song: Path,
    tmp_path: Path,
) -> None:
    page, account = open_page()
    page.check("input[name=style][value=warm]", force=True)
    master(page, song)
    assert page.locator("#side-a").count() == 1
    assert page.inner_text("#result-name") == f"{NAME}.flac"
    assert memories(space.pid) == 0, "the browser has it, so the Space has forgotten it"
    assert files_left(space) == []
    with page.expect_download() as download:
        page.click("#downloads a >> nth=0")
    target = tmp_path / "master.wav"
    download.value.save_as(target)
    assert download.value.suggested_filename == f"{NAME} (master).wav"
    assert soundfile.info(target).subtype == "PCM_24"
    asked = " ".join(f"{request.url} {request.headers} {request.post_data or ''}" for request in account.requests[:-1])
    assert "canary" not in asked, "the file's name stays in the browser"
    assert "−" in page.inner_text("#numbers")
    assert page.locator("#spectrum svg path.line").count() == 2
    assert page.locator("#course svg path.line").count() == 2
    assert page.locator("#reduction svg path.taken").count() == 1
    assert page.locator("#changes li").count() >= 3


def test_the_two_sides_play_at_equal_loudness(open_page: Opener, song: Path) -> None:
    page, _ = open_page()
    master(page, song)
    assert re.search(r"At equal loudness the master is played −\d+\.\d dB", page.inner_text("#player-note"))
    page.click("#play")
    until(lambda: float(page.input_value("#seek")) > 0.2)
    page.press("#play", "a")
    assert page.locator("#side-a").is_checked()
    page.press("#play", "p")


def test_a_reference_goes_with_the_song(open_page: Opener, song: Path) -> None:
    page, account = open_page()
    page.set_input_files("#reference", song)
    assert page.locator("#no-reference").is_visible()
    master(page, song)
    assert any("/references/0" in request.url for request in account.requests)


def test_a_bad_file_is_told_in_the_engines_words(open_page: Opener, tmp_path: Path) -> None:
    page, _ = open_page()
    bad = tmp_path / "letter.wav"
    bad.write_text("Dear mastering engineer, please make it loud.\n" * 99)
    page.set_input_files("#file", bad)
    page.click("#start")
    page.locator(".notice.bad").wait_for()
    assert "This is not an audio file we can read" in page.inner_text("#alert")
    assert page.locator("#choose").is_visible()


def test_cancel_takes_the_song_back(open_page: Opener, space: SpaceProcess, tmp_path: Path) -> None:
    from tests.songs import demo

    page, _ = open_page()
    page.set_input_files("#file", demo(tmp_path / "long.wav", 150))
    page.click("#start")
    page.locator("#work-title", has_text="Mastering").wait_for()
    page.click("#cancel")
    page.locator("#choose").wait_for()
    for _ in range(100):  # the child that renders is killed and waited for
        if memories(space.pid) == 0:
            break
        page.wait_for_timeout(100)
    assert memories(space.pid) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_before_and_after(open_page: Opener, song: Path, scheme: str) -> None:
    page, _ = open_page(scheme=scheme)
    check_accessibility(page)
    master(page, song)
    check_accessibility(page)


def test_it_fits_320_pixels(open_page: Opener, song: Path) -> None:
    page, _ = open_page(width=320, scheme="dark")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    master(page, song)
    assert page.evaluate(wide) == 0
    for summary in page.locator("#result summary").all():
        summary.click()
    assert page.evaluate(wide) == 0
    check_accessibility(page)


def test_it_may_be_framed_by_hugging_face_and_by_nobody_else(space: SpaceProcess) -> None:
    with space.client() as client:
        answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'self' https://huggingface.co" in policy
    assert "'unsafe-inline'" not in policy
    assert "x-frame-options" not in answer.headers, "it knows no list of allowed sites"


def test_every_module_that_a_shared_one_imports_is_shared_too() -> None:
    known = {f"js/{Path(name).name}" for name in upload.SHARED if name.endswith(".js")}
    known |= {name for name in upload.page_files() if name.endswith(".js")}
    for name, path in upload.page_files().items():
        if path.suffix == ".js":
            imported = re.findall(r'^import .* from "\./([^"]+)"', path.read_text("utf-8"), re.M)
            assert {f"js/{one}" for one in imported} <= known, name


WITHOUT_TRACES = """async () => {
  const script = document.querySelector('script[type=module]').src;
  const { showFigures } = await import(script.replace('space.js', 'figures_view.js'));
  const spectrum = [100, 1000].map((hz) => ({ centre_hz: hz, mid_db: -20, side_db: -40 }));
  const measured = { duration_s: 60, integrated_lufs: -14, spectrum };
  showFigures({ before: measured, after: measured, traces: null });
}"""


def test_a_report_without_readings_over_time_shows_no_empty_plots(open_page: Opener, song: Path) -> None:
    page, _ = open_page()
    master(page, song)
    assert page.locator("#course-box").is_visible()
    assert page.locator("#reduction-box").is_visible()
    page.evaluate(WITHOUT_TRACES)
    assert page.locator("#course-box").is_hidden()
    assert page.locator("#reduction-box").is_hidden()


INSIDE = """(svg) => {
  const { width: room } = svg.viewBox.baseVal;
  const { x, width } = svg.getBBox();
  return x >= 0 && x + width <= room && Math.abs(room - svg.clientWidth) < 1;
}"""
"""The drawing was made for the width that it has, and nothing of it sticks out."""


@pytest.mark.songs
def test_a_real_song_on_the_page(open_page: Opener) -> None:
    page, _ = open_page()
    master(page, real_song("vibe_ace.ogg"))
    assert "−14.0" in page.inner_text("#numbers")
    assert "The master is loudest around 0:23, at −12.4" in page.inner_text("#course-text")
    assert page.locator("#course-table tbody tr").count() == 59
    assert re.search(r"At most it takes \d\.\d, around 0:\d\d; it takes more", page.inner_text("#reduction-text"))
    for width, scheme in ((1280, "light"), (1280, "dark"), (320, "dark"), (320, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for name in ("spectrum", "course", "reduction"):
            plot = page.get_by_role("img", name=page.inner_text(f"#{name}-title"))
            assert plot.get_attribute("aria-describedby") == f"{name}-text"
            until(lambda plot=plot: plot.evaluate(INSIDE))
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"space-{width}-{scheme}.png", full_page=True)
