"""The report page as a person opens it: from a file, with nothing from anywhere else, at any width, light and dark."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Request

from mastering.contract import OutputFormat, Settings
from mastering.engine import pipeline
from mastering.report.page import html
from tests.mastering.sound import loud_mix, music, wav

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs: dict[OutputFormat, io.BytesIO] = {}
    report = pipeline.master(
        io.BytesIO(wav(music(seconds=8))),
        Settings(target="cd"),
        references=[io.BytesIO(wav(loud_mix(seconds=4))), io.BytesIO(wav(music(48_000, seconds=4), 48_000))],
        open_output=lambda kind: outputs.setdefault(kind, io.BytesIO()),
        with_costs=True,
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html(report), "utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens_alone_fits_and_can_be_used_by_everybody(
    chromium: Browser, page_file: Path, width: int, scheme: str
) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    asked: list[Request] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request))
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_file.as_uri())
    assert page.locator("figure svg").count() == 4
    assert page.locator("figure svg").first.locator("polyline.s3").count() > 0, "the second reference is drawn"
    assert "pyloudnorm" in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert [request.url for request in asked] == [page_file.as_uri()]
    assert said == []
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"report-{width}-{scheme}.png", full_page=True)
    context.close()
