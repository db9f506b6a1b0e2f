"""The router as a Hugging Face Space: its page in huggingface.co's frame, before a real Chromium and a real sign-in.

huggingface.co's own page is stood in for at its own address, so that the browser judges the frame, its policy and its
cookies by the names they will have.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Frame, Page, Route, expect

from tests.browser.test_sign_in import AXE_RULES, SHOTS, House, running_house, walk_in

pytestmark = pytest.mark.browser

SPACE = "https://huggingface.co/spaces/owner/router"
AROUND = """<!doctype html><html lang="en"><title>A Space</title><h1>owner/router</h1>
<iframe title="The Space" src="{src}" style="width: 100%; height: 46rem; border: 0"
 sandbox="allow-downloads allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox allow-same-origin
 allow-scripts allow-storage-access-by-user-activation"></iframe></html>"""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running_house(tmp_path_factory.mktemp("framed"), profile="space") as running:
        yield running


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, permissions=["local-network-access"])
    context.set_default_timeout(20_000)
    yield context
    context.close()


def framed(context: BrowserContext, url: str) -> tuple[Page, Frame]:
    """huggingface.co's page of the Space, and what is in its frame."""

    def fulfil(route: Route) -> None:
        route.fulfill(body=AROUND.format(src=url), content_type="text/html")

    context.route(SPACE, fulfil)
    page = context.new_page()
    page.goto(SPACE)
    return page, inside(page)


def inside(page: Page) -> Frame:
    element = page.locator("iframe").element_handle()
    frame = element.content_frame() if element else None
    assert frame is not None
    return frame


def test_the_frame_offers_a_tab_of_its_own_where_signing_in_works(context: BrowserContext, services: House) -> None:
    page, frame = framed(context, f"{services.url}/")
    expect(frame.locator("#welcome")).to_be_visible()
    expect(frame.get_by_role("link", name="Sign in with Google")).to_be_hidden()
    expect(frame.locator("#welcome .notice")).to_contain_text("Signing in needs a tab of its own")

    with context.expect_page() as opened:
        frame.get_by_role("link", name="Open in a tab of its own").click()
    tab = opened.value
    expect(tab.locator("#welcome")).to_be_visible()
    assert tab.url == f"{services.url}/", "at the router's own address"
    assert tab.evaluate("window.opener") is None
    expect(tab.locator("#welcome .notice")).to_be_hidden()
    walk_in(tab, services)
    expect(tab.locator("#choose")).to_be_visible()
    (session,) = [cookie for cookie in context.cookies(services.url) if cookie["name"] == "dev-sid"]
    assert session["sameSite"] == "Lax"

    # What the page in the frame says is true: whatever it asks, it is not signed in there.
    assert frame.evaluate("fetch('/v1/options').then(r => r.json()).then(o => o.account.kind)") == "signed_out"
    page.reload()
    expect(inside(page).locator("#welcome .notice")).to_be_visible()


def test_the_account_page_leads_to_itself(context: BrowserContext, services: House) -> None:
    _, frame = framed(context, f"{services.url}/account")
    with context.expect_page() as opened:
        frame.get_by_role("link", name="Open in a tab of its own").click()
    expect(opened.value.locator("#signed-out")).to_be_visible()
    assert opened.value.url == f"{services.url}/account"
    expect(opened.value.get_by_role("link", name="Sign in with Google")).to_be_visible()


def test_a_sign_in_that_begins_in_the_frame_is_told_the_same_and_sets_no_cookie(
    context: BrowserContext, services: House
) -> None:
    _, frame = framed(context, f"{services.url}/sign-in")
    expect(frame.locator("h1")).to_have_text("Not in this frame")
    expect(frame.get_by_role("link", name="Open in a tab of its own")).to_be_visible()
    assert context.cookies() == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (320, "dark")])
def test_what_the_frame_shows_is_for_everybody(chromium: Browser, services: House, width: int, scheme: str) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        permissions=["local-network-access"],
    )
    page, frame = framed(context, f"{services.url}/")
    expect(frame.locator("#welcome .notice")).to_be_visible()
    assert frame.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"framed-{width}-{scheme}.png")
    found = Axe().run(page, context="iframe", options={"runOnly": {"type": "tag", "values": AXE_RULES["runOnly"]}})
    assert found.response["violations"] == [], found.generate_report()
    context.close()


def test_no_other_page_may_frame_it(context: BrowserContext, services: House) -> None:
    said: list[str] = []
    with stranger(AROUND.format(src=f"{services.url}/")) as url:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.goto(url)
        assert inside(page).locator("#welcome").count() == 0
    assert any("frame-ancestors" in line for line in said), said


@contextmanager
def stranger(text: str) -> Iterator[str]:
    """A page of another origin on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
