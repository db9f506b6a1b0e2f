"""`router privacy selfcheck`: reports whether this installation keeps each promise, and the cure where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import httpx
import typer
from rich.console import Console
from rich.table import Table

from router.core.settings import read_settings
from router.privacy import live
from router.privacy.checks import CHECKS
from router.privacy.finding import Finding, Installation
from router.privacy.register import Promise, promises

Status = Literal["ok", "broken", "look", "built in", "text"]
_COLOURS = {"ok": "green", "broken": "bold red", "look": "yellow", "built in": "green", "text": "dim"}
_MEANINGS = (
    "ok: looked at here and now · built in: kept by the code, tested (docs/privacy.md) · look: can't be told from here"
    " · text: legal text only"
)


class SelfcheckLine(NamedTuple):
    """The report on one promise."""

    id: str
    status: Status
    says: str
    looked_at: tuple[str, ...]
    cure: str


def selfcheck(url: str, *, as_json: bool, canary: bool) -> int:
    """Print a line for every promise; 1 when one is broken. Raises CommandError."""
    where = Installation(read_settings(), url if _router_answers(url) else None)
    findings = {name: _findings(name, where) for name in CHECKS}
    result = live.send_canaries() if canary else live.CanaryResult(why_not="--no-canary was asked for")
    lines = list(promise_lines(findings, result))
    if as_json:
        typer.echo(json.dumps({"promises": [line._asdict() for line in lines], "ok": _none_broken(lines)}, indent=2))
    else:
        _print_table(lines)
    return 0 if _none_broken(lines) else 1


def promise_lines(findings: Mapping[str, list[Finding]], result: live.CanaryResult) -> Iterator[SelfcheckLine]:
    """The report on each promise of the register: of its check's findings by name, and of the canary test."""
    for promise in promises().values():
        found = list(findings.get(promise.check or "", []))
        if promise.id in live.PROMISES:
            found.append(_canary_finding(result))
        yield _promise_line(promise, found)


def _promise_line(promise: Promise, found: list[Finding]) -> SelfcheckLine:
    looked_at = tuple(finding.what for finding in found)
    for holds, status in ((False, "broken"), (None, "look")):
        cures = [f"{finding.what}: {finding.cure}" for finding in found if finding.holds is holds]
        if cures:
            return SelfcheckLine(promise.id, status, promise.says, looked_at, "; ".join(cures))  # type: ignore[arg-type]
    if found:
        return SelfcheckLine(promise.id, "ok", promise.says, looked_at, "")
    status = "text" if promise.kind == "L" else "built in"
    return SelfcheckLine(promise.id, status, promise.says, (), promise.reason or "")  # type: ignore[arg-type]


def _canary_finding(result: live.CanaryResult) -> Finding:
    what = "a song with canaries leaves nothing behind"
    if result.why_not:
        return Finding(what, None, result.why_not)
    places = sorted({f"{hit.canary} in {hit.place}" for hit in result.hits})
    return Finding(what, not places, f"found: {', '.join(places)}")


def _findings(name: str, where: Installation) -> list[Finding]:
    try:
        return list(CHECKS[name](where))
    except (OSError, httpx.HTTPError, ValueError, KeyError) as error:
        return [Finding(name, None, f"could not be looked at ({type(error).__name__}): run it as the router's user")]


def _router_answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/privacy.json", timeout=3, trust_env=False).status_code == httpx.codes.OK
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _none_broken(lines: list[SelfcheckLine]) -> bool:
    return all(line.status != "broken" for line in lines)


def _print_table(lines: list[SelfcheckLine]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "", "promise"):
        table.add_column(column, vertical="top", no_wrap=column != "promise")
    for line in lines:
        text = f"{line.says}\n→ {line.cure}" if line.cure else line.says
        table.add_row(line.id, f"[{_COLOURS[line.status]}]{line.status}[/]", text)
    console = Console()
    console.print(table)
    broken = [line.id for line in lines if line.status == "broken"]
    console.print(_MEANINGS)
    console.print(
        f"Broken: {', '.join(broken)}." if broken else "No promise is broken as far as can be seen from here."
    )
