"""Writes the pages that are made from tables in the code. `--check` fails if one is stale."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

from mastering.audio.tag_fields import FIELDS
from ops import policy_edition, privacy_page
from router.admin.gauges import HELP
from router.core.errors import TABLE
from router.core.metrics import Metrics
from router.core.settings import RouterSettings
from router.store import state
from router.tiers.fleet import catalogue
from router.tiers.fleet.catalogue import CatalogueEntry
from router.tiers.policy import faults

DOCS = Path(__file__).parent.parent / "docs"


def pages() -> dict[str, str]:
    """File name → text of every generated page."""
    return {
        "states.md": _states(),
        "errors.md": _errors(),
        "settings.md": _settings(),
        "catalogue.md": _catalogue(),
        "metrics.md": _metrics(),
        "tags.md": _tags(),
        "privacy.md": privacy_page.page(),
    }


def _states() -> str:
    rows = "\n".join(
        f"| `{s}` | {', '.join(f'`{n}`' for n in sorted(state.STEPS[s])) or '–'} |" for s in state.JobState
    )
    return f"# The life of a job\n\n```mermaid\n{state.mermaid()}```\n\n| state | may become |\n| --- | --- |\n{rows}\n"


def _errors() -> str:
    lines = ["# Errors", "", "| code | status | title | whose fault | what to do |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| `{code}` | {r.status} | {r.title} | {r.blame} | {r.retry} |" for code, r in TABLE.items()]
    lines += [
        "",
        "## What a failed attempt leads to",
        "",
        "| class | examples | next | counted |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{c}` | {r.example} | {r.next} | {'yes' if r.counts else 'no'} |" for c, r in faults.CONSEQUENCES.items()
    ]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    lines = ["# Settings of the router", "", "Environment variables; see `router serve --help` for the options.", ""]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in RouterSettings.model_fields.items():
        default = "by the user id" if field.default_factory else f"`{field.default}`"
        lines.append(f"| `ROUTER_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _tags() -> str:
    lines = [
        "# A song's tags",
        "",
        "What a master's tags may hold, and its name in each container. Vorbis comments are in",
    ]
    lines += [
        "FLAC, Ogg and Opus, ID3 (version 2.4) in MP3 and WAV, where an INFO list stands beside it. Names in quotes"
    ]
    lines += [
        "are freeform items of `com.apple.iTunes`. [mastering.md](mastering.md#output) says what is read, what stays"
    ]
    lines += ["out, and what becomes of a value that a container cannot hold.", ""]
    lines += ["| field | Vorbis comment | ID3 | MP4 | INFO | read too |", "| --- | --- | --- | --- | --- | --- |"]
    for field in FIELDS:
        id3 = field.id3 if ":" in field.id3 else field.id3.split()[0]
        mp4 = f"`{field.mp4}`".replace("\xa9", "©") if field.is_atom else f'"{field.mp4}"'
        info = f"`{field.info}`" if field.info else "–"
        also = ", ".join(f"`{name}`" for name in field.also) or "–"
        lines.append(f"| {field.words} | `{field.name.upper()}` | `{id3}` | {mp4} | {info} | {also} |")
    return "\n".join(lines) + "\n"


def _catalogue() -> str:
    lines = [
        "# The catalogue",
        "",
        "The TOML file that `ROUTER_CATALOGUE` names has one `[[backend]]` for each backend.",
        "",
    ]
    lines += ["It is read again when it changes, and on SIGHUP; one with a mistake changes nothing, and the mistake is"]
    lines += ["shown with its line on the operators' page and by `router status`.", ""]
    lines += ["```toml", *_example(), "```", "", "| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in CatalogueEntry.model_fields.items():
        default = "must be given" if field.is_required() else "–" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _example() -> list[str]:
    indented = [line for line in (catalogue.__doc__ or "").splitlines() if line.startswith("    ") or not line]
    return "\n".join(line.removeprefix("    ") for line in indented).strip().splitlines()


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "`/metrics` on the operators' port (`ROUTER_ADMIN_PORT`), for Prometheus. Beside these: the",
    ]
    lines += ["process and the Python platform, by their usual names. No label is of a person or a job.", ""]
    lines += ["| name | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in sorted({**Metrics().described(), **HELP}.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    stale = [] if policy_edition.is_current() else ["the privacy policy's date"]
    if stale and "--check" not in sys.argv:
        policy_edition.open_edition(dt.datetime.now(dt.UTC).date())
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    if wrong := privacy_page.mismatches():
        print("\n".join(["The promises and their tests do not fit (router/privacy/register.toml):", *wrong]))
        return 1
    if stale and "--check" in sys.argv:
        print(f"These are stale: {', '.join(stale)}. Run 'make docs'.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
