"""Pages name files that exist, and "Where do I change" names few of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "ARCHITECTURE.md"
_PATH = re.compile(r"`((?:router|mastering|spaces|ops|tests)/[\w/]+\.\w+)`")
_MOST_FILES = 3
_MORE = {"a kind of tier"}
"""An adapter of its own is at least a file, beside those that know every kind."""


def test_every_file_that_a_page_names_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {(page.name, path) for page in pages for path in _PATH.findall(page.read_text("utf-8"))}
    assert len(named) > 40
    assert sorted((page, path) for page, path in named if not (ROOT / path).is_file()) == []


def test_what_can_be_changed_is_changed_in_three_files_or_fewer() -> None:
    section = ARCHITECTURE.read_text("utf-8").partition("## Where do I change")[2].partition("\n## ")[0]
    rows = {row[0].strip(): row[1] for row in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.M)[1:]}
    assert len(rows) >= 11
    assert {what for what, files in rows.items() if len(_PATH.findall(files)) > _MOST_FILES} <= _MORE
