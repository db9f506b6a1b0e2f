"""The operators' page in a real browser while tiers die: it says what is true, and its buttons do what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from ops.bench._setup import BenchSetup, running_setup, song
from ops.topology import free_port

SOON_MS = 20_000
SHOTS = Path(__file__).parents[2] / "build" / "browser"


@pytest.fixture(scope="module")
def operated() -> Iterator[tuple[BenchSetup, str]]:
    port = free_port()
    with running_setup(["managed", "managed", "cpu_space"], render_s=4.0, admin_port=port) as field:
        yield field, f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(chromium: Browser, operated: tuple[BenchSetup, str]) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(operated[1])
    yield page
    context.close()
    assert complaints == []


def row(page: Page, name: str) -> object:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name))


def test_what_is_up_is_shown_and_the_page_is_open_to_everybody(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("All tiers are up.", timeout=SOON_MS)
    expect(page.get_by_role("heading", level=2)).to_have_text(
        ["Now", "Managed GPU workers", "Hugging Face CPU Space", "What happened"]
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
        assert found.response["violations"] == []


@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_but_the_tables_scrolls_sideways(page: Page, width: int) -> None:
    expect(page.get_by_role("status")).to_have_text("All tiers are up.", timeout=SOON_MS)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_worker_of_another_version_is_no_good_news(page: Page) -> None:
    """What the status says of it is shown as it says it: `test_admin` has the status itself."""
    expect(page.get_by_role("status")).to_have_text("All tiers are up.", timeout=SOON_MS)
    reason = "speaks another version: its engine is 0.9.0, this router's 0.1.0"

    def with_another_version(route: Route) -> None:
        told = httpx.get(route.request.url).json()
        managed = told["tiers"][0]
        told["summary"] = "Songs are mastered, but without: Managed CPU workers."
        managed |= {"title": "Managed CPU workers", "up": False, "condition": "down"}
        next(one for one in managed["backends"] if one["name"] == "stub-1").update(state="incompatible", reason=reason)
        route.fulfill(json=told)

    page.route("**/v1/status", with_another_version)
    expect(row(page, "stub-1")).to_contain_text(reason, timeout=SOON_MS)
    tier = page.get_by_role("article").filter(has_text="Managed CPU workers")
    for word in ("down", "incompatible"):
        expect(tier.get_by_text(word, exact=True)).to_have_class("state bad")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "dashboard-another-version.png", full_page=True)
    page.unroute_all(behavior="ignoreErrors")


def test_a_sandbox_that_lacks_something_is_no_secret(page: Page) -> None:
    """P73: an operator may allow it, and whoever looks sees it."""
    expect(page.get_by_role("status")).to_have_text("All tiers are up.", timeout=SOON_MS)

    def with_gaps(route: Route) -> None:
        told = httpx.get(route.request.url).json()
        told["probe_sandbox_gaps"] = ["use io_uring"]
        next(one for one in told["tiers"][0]["backends"] if one["name"] == "stub-1")["sandbox_gaps"] = ["connect"]
        route.fulfill(json=told)

    page.route("**/v1/status", with_gaps)
    expect(row(page, "stub-1")).to_contain_text("Its sandbox does not refuse to: connect.", timeout=SOON_MS)
    expect(row(page, "stub-2")).not_to_contain_text("sandbox")
    expect(page.get_by_role("alert")).to_have_text("The sandbox around uploads does not refuse to: use io_uring.")
    assert Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]}).response["violations"] == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "dashboard-sandbox.png", full_page=True)
    page.unroute_all(behavior="ignoreErrors")


def test_a_backend_is_drained_and_brought_back_by_keyboard_without_losing_the_place(page: Page) -> None:
    button = page.get_by_role("button", name="Drain: stub-2")
    button.focus()
    page.keyboard.press("Enter")
    expect(row(page, "stub-2")).to_contain_text("draining", timeout=SOON_MS)
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_be_focused()
    page.get_by_role("button", name="Ready: stub-2").click()
    expect(row(page, "stub-2")).to_contain_text("healthy", timeout=SOON_MS)


def test_a_killed_worker_a_failover_and_a_tier_that_is_gone_are_seen_as_they_happen(
    page: Page, operated: tuple[BenchSetup, str]
) -> None:
    field, _ = operated
    client = field.client()
    job_id = client.send(song(200_000))
    expect(page.get_by_text(re.compile("^1 of 8$"))).to_be_visible(timeout=SOON_MS)
    at_work = next(worker for worker in field.workers if worker.notes("accepted"))
    at_work.stop()
    expect(row(page, at_work.name)).to_contain_text(re.compile("open|half-open"), timeout=SOON_MS)
    expect(page.get_by_text("failover after crash")).to_be_visible(timeout=SOON_MS)
    client.wait(job_id)
    for worker in field.workers[:2]:
        worker.stop()
    without = "Songs are mastered, but without: Managed GPU workers."
    expect(page.get_by_role("status")).to_have_text(without, timeout=SOON_MS)
    tier = page.get_by_role("article").filter(has_text="Managed GPU workers")
    expect(tier.get_by_text("down", exact=True)).to_be_visible()
