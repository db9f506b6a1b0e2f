"""The privacy policy as a page (`/privacy`) and as JSON (`/privacy.json`), generated from the schemas themselves.

What the log, the durable store and a job's record may hold is read from the code that writes them; the tiers are those
of the fleet at this moment, so that nothing renders on a tier that is not named here. Editions are dated in
`policy.toml`: each binds a date to a digest of all that the policy says, and `make docs` opens a new one when that has
changed, so that no change goes without a new date.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import sqlite3
import tomllib
from contextlib import closing
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from router.core import event_log
from router.core.errors import Problem
from router.core.settings import RouterSettings
from router.identity import accounts_database, sessions
from router.jobs.services import Services
from router.store.record import Job
from router.tiers.fleet.fleet import Fleet
from router.tiers.fleet.member import BackendTerms
from router.tiers.policy.tier import TIER_ORDER, TIER_TITLES
from router.web.dependencies import TheServices
from router.web.pages.html_templates import rendered
from router.web.pages.static_files import REVALIDATE, StaticFile, file_response

router = APIRouter(tags=["privacy"])

_VALID_DAYS = 180
"""How far ahead security.txt expires; RFC 9116 asks for less than a year."""
_TABLES_WITHOUT_ACCOUNTS = ("store", "backends", "peppers", "spent")


class ProcessingPlace(BaseModel):
    """One place where songs are rendered."""

    tier: str
    title: str
    operator: str = Field(description="Who runs it.")
    region: str = Field(description="Where it stands.")
    third_party: bool = Field(description="True where the audio leaves this service's own workers.")
    forgets: bool = Field(description="False where nobody can promise that nothing of a song stays there.")


class Edition(BaseModel):
    """The policy at one date."""

    version: int
    date: dt.date
    digest: str = Field(description="Of all that this edition says for the shipped catalogue.")


class Policy(BaseModel):
    """What this service holds, where, and for how long."""

    edition: Edition
    contact: str | None = Field(description="Where to write.")
    tiers: list[ProcessingPlace] = Field(description="Where songs may be rendered, in order of preference.")
    tiers_version: str = Field(description="Names this list; a consent holds for the list it was given for.")
    master_kept_s: float = Field(description="How long a master can be fetched, counted from the making of its job.")
    log_days: int | None = Field(description="Days that the log is kept; null where the operator's host keeps it.")
    job: list[str] = Field(description="What the record of a job holds, in RAM, until the job's time is over.")
    account: dict[str, list[str]] = Field(description="All that is kept of an account: table by table.")
    log: dict[str, dict[str, str]] = Field(description="All that the log may hold: event by event, field by field.")


class _OperatorFacts(NamedTuple):
    """The parts of a policy that depend on the operator: tiers, contact, retention."""

    places: tuple[ProcessingPlace, ...] = ()
    tiers_version: str = "managed"
    contact: str | None = None
    master_kept_s: float = RouterSettings.model_fields["output_ttl_s"].default
    log_days: int | None = None


@router.get("/privacy.json")
async def as_json(services: TheServices) -> Policy:
    """What is held, where, and for how long: read from the schemas of the log, the store and the job record."""
    return policy(_operator_facts(services))


@router.get("/privacy", include_in_schema=False)
async def page(request: Request, services: TheServices) -> Response:
    current = policy(_operator_facts(services)).model_dump_json()
    return file_response(request, _policy_page(current, services.settings.profile), REVALIDATE)


@router.get("/.well-known/security.txt", include_in_schema=False)
async def security_txt(services: TheServices) -> Response:
    """RFC 9116. Without a contact there is none: the file would be invalid."""
    if services.settings.contact is None:
        raise Problem("not_found", "The operator of this router has not named a contact.")
    until = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=_VALID_DAYS)
    lines = [f"Contact: {services.settings.contact}", f"Expires: {until:%Y-%m-%dT%H:%M:%SZ}", "Preferred-Languages: en"]
    if services.settings.public_url:
        base = services.settings.public_url
        lines += [f"Canonical: {base}/.well-known/security.txt", f"Policy: {base}/privacy"]
    return Response("\n".join([*lines, ""]), media_type="text/plain; charset=utf-8")


def _operator_facts(services: Services) -> _OperatorFacts:
    return _OperatorFacts(
        places=tuple(processing_places(services.fleet)),
        tiers_version=services.tiers_version(),
        contact=services.settings.contact,
        master_kept_s=services.settings.output_ttl_s,
        log_days=event_log.DAYS_KEPT if services.settings.log_dir else None,
    )


def processing_places(fleet: Fleet) -> list[ProcessingPlace]:
    """Every tier, operator and region of the fleet at this moment, each once, in order of preference."""
    found = {}
    for member in fleet.members():
        tier, (operator, region, forgets) = member.backend.tier, member.terms.consent_key
        outside = tier != "managed"
        # The catalogue does not say; the machine is not this service's.
        if outside and operator == BackendTerms().operator:
            operator = "Hugging Face" if forgets else "somebody whom the operator does not name"
        found[tier, operator, region, forgets] = ProcessingPlace(
            tier=tier, title=TIER_TITLES[tier], operator=operator, region=region, third_party=outside, forgets=forgets
        )
    return [found[key] for key in sorted(found, key=lambda key: (TIER_ORDER.index(key[0]), *key[1:]))]


def policy(operator: _OperatorFacts) -> Policy:
    """The policy in force, of the newest edition."""
    return Policy(edition=editions()[-1], **_contents(operator))


def digest() -> str:
    """Digest of the policy as shipped, before an operator sets anything: what an edition's date is bound to."""
    template = files("router.web").joinpath("templates", "privacy.html").read_text("utf-8")
    current = Policy(edition=Edition(version=0, date=dt.date.min, digest=""), **_contents(_OperatorFacts()))
    return hashlib.sha256(f"{current.model_dump_json()}\n{template}".encode()).hexdigest()[:16]


@cache
def editions() -> list[Edition]:
    """All editions, the one in force last."""
    found = tomllib.loads(files("router.web.pages").joinpath("policy.toml").read_text("utf-8"))["edition"]
    return [Edition(version=number, **edition) for number, edition in enumerate(found, 1)]


def _contents(operator: _OperatorFacts) -> dict[str, object]:
    return {
        "contact": operator.contact,
        "tiers": list(operator.places),
        "tiers_version": operator.tiers_version,
        "master_kept_s": operator.master_kept_s,
        "log_days": operator.log_days,
        "job": list(Job.model_fields),
        "account": _account_tables(accounts_database.SCHEMA + sessions.SCHEMA),
        "log": {
            event: {name: kind.text for name, kind in kinds.items()} for event, kinds in event_log.book.events.items()
        },
    }


def _account_tables(schema: str) -> dict[str, list[str]]:
    """Table → columns of the tables that name an account, as SQLite itself understands the schema."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema)
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        columns = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in names}
    return {name: found for name, found in columns.items() if name not in _TABLES_WITHOUT_ACCOUNTS}


@cache
def _policy_page(policy_json: str, profile: str) -> StaticFile:
    return rendered("privacy.html", policy=Policy(**json.loads(policy_json)), framed=profile == "space")
