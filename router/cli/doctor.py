"""`router doctor`: how to set up signing in, step by step, and whether what is set up can work; a line per check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import NamedTuple

import typer
from pydantic import ValidationError

from router.core import clock
from router.core.command_error import CommandError
from router.core.settings import RouterSettings, is_loopback
from router.identity import accounts_database, login, pseudonyms
from router.identity.http_fetch import ProviderUnavailable, SignInRefused
from router.identity.oidc import LEEWAY_S, Provider

GOOGLE = "https://accounts.google.com"
_GOOGLE_CLIENT = ".apps.googleusercontent.com"


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"
    FAILED = "FAILED"


class SetupFinding(NamedTuple):
    """One line: what was looked at, how it is, and what to do where it is not well."""

    verdict: Verdict
    sentence: str


def examine() -> None:
    """Print every finding. Raises Complaint when one failed."""
    failed = asyncio.run(_examine())
    if failed:
        raise CommandError(f"{failed} of the checks above failed.")


async def _examine() -> int:
    try:
        settings = RouterSettings()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise CommandError(f"setting {where}: {first['msg'].removeprefix('Value error, ')}.", exit_code=2) from None
    if not settings.has_sign_in:
        typer.echo(_STEPS.format(redirect_uri=settings.redirect_uri))
    failed = 0
    async for finding in findings(settings):
        typer.echo(f"{finding.verdict:<6}  {finding.sentence}")
        failed += finding.verdict is Verdict.FAILED
    return failed


async def findings(settings: RouterSettings) -> AsyncIterator[SetupFinding]:
    """Everything that can be looked at from here, the simplest first."""
    yield _address(settings)
    for finding in _store(settings):
        yield finding
    if not settings.has_sign_in:
        yield SetupFinding(Verdict.NOTE, "Sign-in is not set up: whoever reaches this router is its guest.")
        return
    yield _client(settings)
    yield SetupFinding(Verdict.NOTE, f"The provider must have this redirect URI on record: {settings.redirect_uri}")
    async for finding in _provider(settings):
        yield finding


def _address(settings: RouterSettings) -> SetupFinding:
    if settings.public_url is not None:
        return SetupFinding(Verdict.OK, f"The public address is {settings.origin}, by https.")
    if is_loopback(settings.host):
        return SetupFinding(Verdict.OK, f"The router serves this machine alone, at {settings.origin}.")
    return SetupFinding(
        Verdict.FAILED, f"{settings.host} is open to others: set up sign-in and ROUTER_PUBLIC_URL (https)."
    )


def _store(settings: RouterSettings) -> list[SetupFinding]:
    found = accounts_database.inspect(settings.state_dir)
    if found is None:
        store = SetupFinding(Verdict.OK, "The account store is made at the first start.")
    elif not found.sound:
        store = SetupFinding(
            Verdict.FAILED, "The account store is damaged. The next start sets it aside and fails closed."
        )
    elif not found.trusted:
        cure = "Restore it, or accept the loss: router accounts confirm"
        store = SetupFinding(Verdict.FAILED, f"The account store was lost: every job is managed only. {cure}")
    else:
        store = SetupFinding(Verdict.OK, "The account store is whole.")
    return [store, *(_pepper(settings, found) if settings.has_sign_in else [])]


def _pepper(settings: RouterSettings, store: accounts_database.StoreHealth | None) -> list[SetupFinding]:
    given = settings.pepper.get_secret_value() if settings.pepper is not None else None
    path = settings.state_dir / pseudonyms.FILE
    expected = store.peppers if store is not None else {}
    if given is None and not path.exists():
        if expected:
            return [SetupFinding(Verdict.FAILED, f"The pepper is lost: bring {path} back before the next start.")]
        return [
            SetupFinding(
                Verdict.OK, f"The pepper is made at the first start: {path}. Keep a copy, not beside the store."
            )
        ]
    try:
        known = pseudonyms.load(settings.state_dir, given)
    except CommandError as command_error:
        return [SetupFinding(Verdict.FAILED, f"Pepper: {command_error}")]
    where = "ROUTER_PEPPER" if given is not None else str(path)
    wrong = [version for version, mark in expected.items() if known.fingerprints().get(version) != mark]
    if wrong:
        which = ", ".join(map(str, wrong))
        return [SetupFinding(Verdict.FAILED, f"{where} lacks the pepper {which} that the accounts were made with.")]
    versions = ", ".join(map(str, known.versions))
    return [SetupFinding(Verdict.OK, f"The pepper is in {where}, for its owner alone; versions: {versions}.")]


def _client(settings: RouterSettings) -> SetupFinding:
    if settings.oidc_issuer == GOOGLE and not str(settings.oidc_client_id).endswith(_GOOGLE_CLIENT):
        return SetupFinding(Verdict.FAILED, f"ROUTER_OIDC_CLIENT_ID is none of Google's: they end in {_GOOGLE_CLIENT}.")
    return SetupFinding(Verdict.OK, f"A client id and its secret are set, for {settings.oidc_issuer}.")


async def _provider(settings: RouterSettings) -> AsyncIterator[SetupFinding]:
    secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else ""
    provider = Provider(settings.oidc_issuer, str(settings.oidc_client_id), secret, settings.redirect_uri)
    try:
        metadata = await provider.metadata()
        yield SetupFinding(Verdict.OK, "The provider answers and describes itself as it should.")
        yield _clock(metadata.clock_ahead_s)
        trial, _ = login.begin(b"a trial of the doctor's", clock.now())
        if await provider.accepts_redirect_uri(trial):
            yield SetupFinding(Verdict.OK, "The provider shows its page for this client and this redirect URI.")
        else:
            yield SetupFinding(
                Verdict.FAILED, "The provider refuses this client id or redirect URI: compare both with its record."
            )
        yield _SECRET[await provider.accepts_secret()]
    except ProviderUnavailable:
        yield SetupFinding(
            Verdict.FAILED, f"{settings.oidc_issuer} gives no answer. Is this machine allowed to ask it?"
        )
    except SignInRefused as refused:
        yield SetupFinding(
            Verdict.FAILED, f"The provider's answer can't be used ({refused.reason}). Is the issuer right?"
        )


def _clock(ahead_s: float | None) -> SetupFinding:
    if ahead_s is None:
        return SetupFinding(Verdict.NOTE, "The provider does not say what time it is.")
    if abs(ahead_s) > LEEWAY_S:
        side = "behind" if ahead_s > 0 else "ahead of"
        return SetupFinding(
            Verdict.FAILED, f"This clock is {abs(ahead_s):.0f} s {side} the provider's; {LEEWAY_S} are allowed."
        )
    return SetupFinding(Verdict.OK, f"This clock and the provider's agree within {LEEWAY_S} s.")


_SECRET = {
    True: SetupFinding(Verdict.OK, "The provider accepts the client's secret."),
    False: SetupFinding(Verdict.FAILED, "The provider refuses the client's secret. Copy it again."),
    None: SetupFinding(Verdict.NOTE, "The provider does not say whether the client's secret is right."),
}
_STEPS = """\
To let people sign in with Google:
 1. Open https://console.cloud.google.com/ and make a project, or choose one.
 2. "Google Auth Platform" → "Get started": a name for the page, your address, audience "External", your contact.
    Ask for no scopes: this router uses `openid` alone, for which Google wants no review.
 3. "Clients" → "Create client" → "Web application". Under "Authorised redirect URIs" put exactly
      {redirect_uri}
    (behind a proxy set ROUTER_PUBLIC_URL first: the line above follows it). Leave "JavaScript origins" empty.
 4. Copy both values; the secret is shown once:
      export ROUTER_OIDC_CLIENT_ID=….apps.googleusercontent.com
      export ROUTER_OIDC_CLIENT_SECRET=…
 5. "Audience" → "Publish app": until then only the test users that you list can sign in.
 6. Run `router doctor` again, then start the router.
"""
