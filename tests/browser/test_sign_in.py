"""A person signs in at a provider that we did not write, in a real browser, and leaves without a trace.

oidc-provider (npm) with its own pages stands for Google: another program, in another language, by other people.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import NODE, master
from tests.stack import Running, Stack, free_port, stack

pytestmark = pytest.mark.browser

HERE = Path(__file__).parents[1] / "provider"
SHOTS = Path(__file__).parents[2] / "build" / "browser"
AXE_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
CLIENT_ID, CLIENT_SECRET = "mastering", "a-secret-of-the-tests"
LOGIN = "canary-login-7183"
START_S = 60.0


@dataclass
class House:
    """A router with sign-in and the provider that it trusts."""

    stack: Stack
    provider: Running

    @property
    def url(self) -> str:
        return self.stack.url


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running_house(tmp_path_factory.mktemp("sign-in")) as running:
        yield running


@contextmanager
def running_house(folder: Path, **more: object) -> Iterator[House]:
    """A house of real processes; `more` are settings of its router."""
    port, own = free_port(), free_port()
    provider = _start_provider(folder, port, f"http://127.0.0.1:{own}/sign-in/callback")
    settings = {
        "oidc_issuer": provider.url,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        **more,
    }
    try:
        with stack(folder, settings=settings, port=own) as running:
            yield House(running, provider)
    finally:
        provider.stop()


def _start_provider(folder: Path, port: int, redirect_uri: str) -> Running:
    assert (HERE / "node_modules").is_dir(), "the second provider is missing: `make setup-test` installs it"
    output = folder / "provider.txt"
    script = [str(HERE / "server.js"), CLIENT_ID, CLIENT_SECRET, redirect_uri, str(port)]
    with output.open("wb") as sink:
        process = subprocess.Popen([NODE, *script], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    running = Running(process, output, f"http://127.0.0.1:{port}")
    give_up_at = time.monotonic() + START_S
    while "up\n" not in running.said():
        assert process.poll() is None, running.said()
        assert time.monotonic() < give_up_at, running.said()
        time.sleep(0.05)
    return running


@pytest.fixture
def context(chromium: Browser, services: House) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, base_url=services.url)
    context.set_default_timeout(20_000)
    yield context
    context.close()


def sign_in(page: Page, services: House, path: str = "/") -> None:
    """Walk the whole way as a person does: our button, the provider's two pages, and back."""
    page.goto(path)
    walk_in(page, services)


def walk_in(page: Page, services: House) -> None:
    """The same from a page of ours that offers it."""
    page.get_by_role("link", name="Sign in with Google").click()
    page.wait_for_url(f"{services.provider.url}/interaction/**")
    page.fill("input[name=login]", LOGIN)
    page.fill("input[name=password]", "whatever")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{services.url}/**")


def test_a_person_signs_in_masters_a_song_sees_what_is_held_and_erases_it(
    context: BrowserContext, services: House, song: Path
) -> None:
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    strangers: list[str] = []
    page.on("request", lambda request: strangers.append(request.url) if page.url.startswith(services.url) else None)
    page.goto("/")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#choose")).to_be_hidden()
    _look(page, "signed-out")
    assert context.cookies() == [], "to look around sets no cookie"

    sign_in(page, services)
    expect(page.locator("#choose")).to_be_visible()
    ours = {cookie["name"]: cookie for cookie in context.cookies(services.url)}
    ours = {name: cookie for name, cookie in ours.items() if not name.startswith("_")}
    assert set(ours) == {"dev-sid"}, "the sign-in's own cookie went with the sign-in"
    assert ours["dev-sid"]["httpOnly"]
    assert ours["dev-sid"]["sameSite"] == "Lax"
    assert ours["dev-sid"]["expires"] == -1, "it goes with the browser"
    assert page.evaluate("document.cookie") == ""

    master(page, song)
    page.goto("/account")
    expect(page.locator("#account")).to_be_visible()
    expect(page.locator("#held")).to_contain_text(re.compile(r"v1_[\w-]{22}"))
    _look(page, "account")
    page.check("#managed")
    expect(page.locator("#consent-reason")).to_have_text("You chose our own workers only.")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#secret")).to_have_text(re.compile(r"mr_[\w-]{43}"))
    token = page.locator("#secret").inner_text()
    shown = httpx.get(f"{services.url}/v1/options", headers={"authorization": f"Bearer {token}"}).json()
    kind, managed_only = shown["account"]["kind"], shown["account"]["managed_only"]
    assert (kind, managed_only) == ("token", True), "what was chosen on the page holds for the token's jobs"
    _look(page, "account-token")

    before = {cookie["name"]: cookie["value"] for cookie in context.cookies(services.url)}["dev-sid"]
    page.get_by_role("button", name="Erase everything").click()
    page.locator("#confirm button[value=erase]").click()
    expect(page.locator("#erased-text")).to_contain_text("One job was destroyed")
    assert [c["name"] for c in context.cookies(services.url) if not c["name"].startswith("_")] == []
    refused = httpx.get(f"{services.url}/v1/account", headers={"cookie": f"dev-sid={before}"})
    assert refused.status_code == 401
    assert httpx.get(f"{services.url}/v1/options", headers={"authorization": f"Bearer {token}"}).status_code == 401
    assert not [path for path in services.stack.spool_dir.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"]
    assert complaints == []
    assert {_origin(url) for url in strangers if not url.startswith(("blob:", "data:"))} <= {
        services.url,
        services.provider.url,
    }
    said = services.provider.said()
    assert said.count("grant.success") >= 1
    assert "userinfo" not in said


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


def test_signing_out_ends_the_session_and_the_page_asks_again(context: BrowserContext, services: House) -> None:
    page = context.new_page()
    sign_in(page, services, "/account")
    expect(page.locator("#account")).to_be_visible()
    assert page.url.endswith("/account"), "back to where the sign-in began"
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.locator("#welcome")).to_be_visible()
    assert [c["name"] for c in context.cookies(services.url) if not c["name"].startswith("_")] == []
    page.goto("/account")
    expect(page.locator("#signed-out")).to_be_visible()


def test_p35_signing_in_needs_no_storage_but_the_cookie(context: BrowserContext, services: House) -> None:
    page = context.new_page()
    page.add_init_script(
        'for (const name of ["sessionStorage", "localStorage"]) Object.defineProperty(window, name,'
        ' {get() { throw new DOMException("blocked", "SecurityError"); }});'
    )
    page.goto("/")
    page.goto("/sign-in")
    page.fill("input[name=login]", LOGIN)
    page.fill("input[name=password]", "whatever")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{services.url}/")
    expect(page.locator("#choose")).to_be_visible()


def test_a_person_signs_in_in_two_tabs_and_goes_back_and_sees_no_failure(
    context: BrowserContext, services: House
) -> None:
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto("/")
        page.get_by_role("link", name="Sign in with Google").click()
        page.wait_for_url(f"{services.provider.url}/interaction/**")
    back = []
    first.on("request", lambda request: back.append(request.url) if "/sign-in/callback" in request.url else None)
    for page in (second, first):
        _agree(page)
        page.wait_for_url(f"{services.url}/")
        expect(page.locator("#choose")).to_be_visible()
    first.goto(back[0])
    assert first.url == f"{services.url}/"
    first.go_back()
    first.go_forward()
    expect(first.locator("#choose")).to_be_visible()
    assert {name for name in _names(context, services) if not name.startswith("_")} == {"dev-sid"}


def _agree(page: Page) -> None:
    """At the provider, which asks for a consent only once."""
    page.fill("input[name=login]", LOGIN)
    page.fill("input[name=password]", "whatever")
    page.get_by_role("button", name="Sign-in").click()
    consent = page.get_by_role("button", name="Continue")
    expect(consent.or_(page.locator("#choose"))).to_be_visible()
    if consent.is_visible():
        consent.click()


def _names(context: BrowserContext, services: House) -> set[str]:
    return {cookie["name"] for cookie in context.cookies(services.url)}


def test_a_person_who_says_no_stays_out_and_reads_a_sentence(context: BrowserContext, services: House) -> None:
    page = context.new_page()
    page.goto("/sign-in")
    page.get_by_role("link", name=re.compile("Cancel")).click()
    page.wait_for_url(f"{services.url}/**")
    expect(page.locator("h1")).to_have_text("You stayed signed out")
    _look(page, "declined")
    assert [c["name"] for c in context.cookies(services.url) if not c["name"].startswith("_")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_pages_of_signing_in_are_for_everybody(chromium: Browser, services: House, width: int, scheme: str) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light",
        base_url=services.url,
    )  # fmt: skip
    context.set_default_timeout(20_000)
    try:
        page = context.new_page()
        page.goto("/")
        expect(page.locator("#welcome")).to_be_visible()
        _check(page, f"welcome-{width}-{scheme}")
        sign_in(page, services, "/account")
        page.get_by_role("button", name="Make a token").click()
        expect(page.locator("#secret")).to_be_visible()
        _check(page, f"account-{width}-{scheme}")
    finally:
        context.close()


def _check(page: Page, name: str) -> None:
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": AXE_RULES["runOnly"]}})
    assert found.response["violations"] == [], found.generate_report()
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1], "nothing is cut off at the side"
    _look(page, name)


def _look(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"sign-in-{name}.png", full_page=True)


def test_nothing_of_the_person_is_in_any_file_of_the_router(context: BrowserContext, services: House) -> None:
    sign_in(context.new_page(), services)
    running = services.stack
    folders = (running.ram_dir, running.spool_dir, running.folder / "state")
    kept = b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())
    said = running.router.said()
    assert '"sign_in"' in said, "the log told of it"
    for canary in (LOGIN, f"{LOGIN}@mail.example", CLIENT_SECRET):
        assert canary.encode() not in kept
        assert canary not in said
