"""Writes the pages that are made from tables in the code: states, errors, settings. `--check` fails if one is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from router.errors import TABLE
from router.jobs import state
from router.settings import Settings
from router.tiers import faults

DOCS = Path(__file__).parent.parent / "docs"


def pages() -> dict[str, str]:
    """File name → text of every generated page."""
    return {"states.md": _states(), "errors.md": _errors(), "settings.md": _settings()}


def _states() -> str:
    rows = "\n".join(f"| `{s}` | {', '.join(f'`{n}`' for n in sorted(state.STEPS[s])) or '–'} |" for s in state.State)
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
    lines += [f"| `{c}` | {r.example} | {r.next} | {'yes' if r.counts else 'no'} |" for c, r in faults.TABLE.items()]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    lines = ["# Settings of the router", "", "Environment variables; see `router serve --help` for the options.", ""]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "by the user id" if field.default_factory else f"`{field.default}`"
        lines.append(f"| `ROUTER_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    stale = []
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    if stale and "--check" in sys.argv:
        print(f"These pages are stale: {', '.join(stale)}. Run 'make docs'.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
