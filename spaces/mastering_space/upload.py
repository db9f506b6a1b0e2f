"""Which files make up a Space's folder, and where this checkout keeps them. The standard library alone.

A Space gets its own files (app, card, requirements), the packages `mastering` and `mastering_space`, and those parts of
the router's page that both pages share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent.parent
ROUTER_WEB = CHECKOUT / "router" / "web"
SHARED = (
    "static/app.css",
    "static/icon.svg",
    "static/js/api.js",
    "static/js/audio.js",
    "static/js/dom.js",
    "static/js/downloads.js",
    "static/js/figures_view.js",
    "static/js/player.js",
    "static/js/player_view.js",
    "static/js/plots.js",
    "static/js/report_view.js",
    "static/js/words.js",
    "templates/master.html",
)
"""Files of router/web: the player, the plots and the texts are the same wherever a master is shown."""

_OWN = {"app.py", "README.md", "requirements.txt", "pre-requirements.txt", "Dockerfile"}
_PARTS = {".py", ".typed", ".toml", ".txt", ".html", ".css", ".js", ".svg"}


def files(kind: str) -> dict[str, Path]:
    """Path in the Space → file in this checkout, for the Space `kind` (cpu, zero_gpu)."""
    found = own_files(kind)
    for package in (CHECKOUT / "mastering", PACKAGE):
        found |= {path.relative_to(package.parent).as_posix(): path for path in program_files(package)}
    return found | {f"{PACKAGE.name}/{name}": ROUTER_WEB / name for name in SHARED}


def own_files(kind: str) -> dict[str, Path]:
    """Name → file that the Space `kind` alone has."""
    return {path.name: path for path in sorted((CHECKOUT / "spaces" / kind).iterdir()) if path.name in _OWN}


def program_files(folder: Path) -> Iterator[Path]:
    """The files of a program below `folder`, by their names: what an editor or a person left there is not uploaded."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "__")):
            yield from program_files(path)
        elif path.is_file() and path.suffix in _PARTS and not path.name.startswith("."):
            yield path


def page_files() -> dict[str, Path]:
    """Name → static file of the page, in a Space's folder or in a checkout."""
    found = {path.relative_to(PACKAGE / "static").as_posix(): path for path in program_files(PACKAGE / "static")}
    if not _is_put_together():
        found |= {name.removeprefix("static/"): ROUTER_WEB / name for name in SHARED if name.startswith("static/")}
    return found


def template_folders() -> list[Path]:
    """Folders of the page's templates, in a Space's folder or in a checkout."""
    return [PACKAGE / "templates", *([] if _is_put_together() else [ROUTER_WEB / "templates"])]


def example() -> str:
    """The code that calls a Space from Python, three lines; the card and the page show it, and a test runs it."""
    return (PACKAGE / "example.txt").read_text("utf-8").rstrip()


def _is_put_together() -> bool:
    """Whether this is a Space's folder, where the shared files lie beside ours."""
    return (PACKAGE / SHARED[-1]).exists()
