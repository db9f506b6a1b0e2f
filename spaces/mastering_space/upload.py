"""Which files make up a Space's folder, and where this checkout keeps them. The standard library alone.

A Space gets its own files (app, card, requirements), the packages `mastering` and `mastering_space`, and those parts of
the router's page that both faces share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
SHARED_STATIC = (
    "app.css",
    "icon.svg",
    "js/audio.js",
    "js/dom.js",
    "js/player.js",
    "js/plots.js",
    "js/report_view.js",
    "js/words.js",
)
"""Of router/web/static: the player, the plots and the words are the same wherever a master is shown."""
_NEVER = {"__pycache__"}


def files(kind: str, checkout: Path = CHECKOUT) -> dict[str, Path]:
    """Path in the Space → file here, for the Space `kind` (cpu, zero_gpu)."""
    found = {path.name: path for path in sorted((checkout / "spaces" / kind).iterdir()) if path.is_file()}
    for package, folder in (("mastering", checkout), ("mastering_space", checkout / "spaces")):
        found |= {path.relative_to(folder).as_posix(): path for path in _walk(folder / package)}
    shared = checkout / "router" / "web" / "static"
    found |= {f"mastering_space/static/{name}": shared / name for name in SHARED_STATIC}
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _NEVER:
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path
