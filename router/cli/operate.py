"""`router status`, `drain`, `maintenance` and `ready`: requests to the operators' port, printed as text."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.table import Table

from router.cli.server import checked_url, why_no_answer
from router.core.command_error import CommandError

_EXIT_UNREACHABLE = 4
_TIMEOUT_S = 10.0
"""Seconds for an answer of the operators' port, which is on this machine."""


def show_status(url: str, *, as_json: bool) -> None:
    """Print the router's status as a table or as JSON. Raises CommandError when it does not answer."""
    status = _request("GET", url, "/v1/status")
    if as_json:
        typer.echo(json.dumps(status, indent=2))
        return
    _print_status(status)


def set_mode(url: str, backend: str, mode: str) -> None:
    """Set a backend's mode (ready, draining or maintenance) and print its state. Raises CommandError."""
    status = _request("PUT", url, f"/v1/backends/{quote(backend, safe='')}/mode", {"mode": mode})
    found = next(b for tier in status["tiers"] for b in tier["backends"] if b["name"] == backend)
    typer.echo(f"{backend} is {found['state']} ({found['reason']}); {found['in_flight']} in flight.")


def _request(method: str, url: str, path: str, body: object = None) -> dict[str, Any]:
    url = checked_url(url)
    try:
        response = httpx.request(method, url + path, json=body, timeout=_TIMEOUT_S, trust_env=False)
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        cure = "Start it with ROUTER_ADMIN_PORT set, or name its operators' port with --url."
        raise CommandError(f"{why_no_answer(url, error)}. {cure}", _EXIT_UNREACHABLE) from None
    if not response.is_success:
        raise CommandError(str(answer.get("detail", answer.get("title", "the router refused"))))
    return answer


def _print_status(status: dict[str, Any]) -> None:
    console, queue, spool = Console(), status["queue"], status["spool"]
    console.print(status["summary"], style="bold")
    if status["catalogue_error"]:
        console.print(f"The catalogue has a mistake: {status['catalogue_error']}", style="red", markup=False)
    table = Table("Tier", "Backend", "Does", "State", "For", "In flight", "Song takes", "Why", box=None)
    for tier in status["tiers"]:
        for backend in tier["backends"]:
            flight = f"{backend['in_flight']}/{backend['slots']}"
            cells = (f"{backend['since_s']:.0f} s", flight, f"{backend['eta_s']:.0f} s", backend["reason"])
            does = "?" if backend["kinds"] is None else ", ".join(backend["kinds"])
            table.add_row(tier["title"], backend["name"], does, backend["state"], *cells)
    console.print(table)
    for backend in (each for tier in status["tiers"] for each in tier["backends"]):
        for lack in backend["lacks"]:
            console.print(f"{backend['name']} {lack}", markup=False, soft_wrap=True)
    oldest = f", the oldest for {queue['oldest_s']:.0f} s" if queue["oldest_s"] is not None else ""
    console.print(f"Queue: {queue['waiting']} waiting{oldest}; {queue['running']} running. {queue['outlook']}")
    used, quota = spool["used_bytes"] / 1e6, spool["quota_bytes"] / 1e6
    console.print(f"Spool: {used:.0f} of {quota:.0f} MB in {spool['files']} files.")
