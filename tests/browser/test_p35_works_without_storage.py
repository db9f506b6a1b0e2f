"""P34, P35: a song is mastered in a browser that refuses all storage, and no cookie is left in one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Opener, master

pytestmark = pytest.mark.browser

REFUSE = """
for (const name of ['localStorage', 'sessionStorage']) {
  Object.defineProperty(window, name, { get() { throw new DOMException('refused', 'SecurityError'); } });
}
Object.defineProperty(document, 'cookie', { get() { return ''; }, set() { throw new DOMException('refused'); } });
"""


def test_p35_a_browser_that_refuses_storage_and_cookies_gets_its_master(open_page: Opener, song: Path) -> None:
    page, _ = open_page(before=REFUSE)
    master(page, song)
    assert page.locator("#result").is_visible()


def test_p34_a_guest_who_masters_a_song_is_left_without_any_cookie(open_page: Opener, song: Path) -> None:
    page, _ = open_page()
    master(page, song)
    assert page.context.cookies() == []
    assert page.evaluate("Object.keys(localStorage)") == []
