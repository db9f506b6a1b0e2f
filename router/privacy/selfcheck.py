"""`router privacy selfcheck`: every promise, whether it is kept here, and the cure where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import httpx
import typer
from rich.console import Console
from rich.table import Table

from router.core.settings import RouterSettings
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
    """What selfcheck says of one promise."""

    id: str
    status: Status
    says: str
    looked_at: tuple[str, ...]
    cure: str


def selfcheck(url: str, *, as_json: bool, canary: bool) -> int:
    """Print a line for every promise; 1 when one is broken. Raises Complaint."""
    where = Installation(RouterSettings(), url if _answers(url) else None)
    findings = {name: _looked(name, where) for name in CHECKS}
    result = live.run() if canary else live.Result(why_not="--no-canary was asked for")
    lines = list(judged(findings, result))
    if as_json:
        typer.echo(json.dumps({"promises": [line._asdict() for line in lines], "ok": _whole(lines)}, indent=2))
    else:
        _print(lines)
    return 0 if _whole(lines) else 1


def judged(findings: Mapping[str, list[Finding]], result: live.Result) -> Iterator[SelfcheckLine]:
    """One line for each promise of the register."""
    for promise in promises().values():
        found = list(findings.get(promise.check or "", []))
        if promise.id in live.IN_PLACE_OF:
            found.append(_of_canary(result))
        yield _line(promise, found)


def _line(promise: Promise, found: list[Finding]) -> SelfcheckLine:
    looked_at = tuple(finding.what for finding in found)
    for holds, status in ((False, "broken"), (None, "look")):
        cures = [f"{finding.what}: {finding.cure}" for finding in found if finding.holds is holds]
        if cures:
            return SelfcheckLine(promise.id, status, promise.says, looked_at, "; ".join(cures))  # type: ignore[arg-type]
    if found:
        return SelfcheckLine(promise.id, "ok", promise.says, looked_at, "")
    status = "text" if promise.kind == "L" else "built in"
    return SelfcheckLine(promise.id, status, promise.says, (), promise.reason or "")  # type: ignore[arg-type]


def _of_canary(result: live.Result) -> Finding:
    what = "a song with canaries leaves nothing behind"
    if result.why_not:
        return Finding(what, None, result.why_not)
    places = sorted({f"{hit.canary} in {hit.place}" for hit in result.hits})
    return Finding(what, not places, f"found: {', '.join(places)}")


def _looked(name: str, where: Installation) -> list[Finding]:
    try:
        return list(CHECKS[name](where))
    except (OSError, httpx.HTTPError, ValueError, KeyError) as error:
        return [Finding(name, None, f"could not be looked at ({type(error).__name__}): run it as the router's user")]


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/privacy.json", timeout=3, trust_env=False).status_code == httpx.codes.OK
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _whole(lines: list[SelfcheckLine]) -> bool:
    return all(line.status != "broken" for line in lines)


def _print(lines: list[SelfcheckLine]) -> None:
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
