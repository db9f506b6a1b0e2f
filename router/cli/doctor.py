"""`router doctor`: how to set up sign-in, step by step, and a line per check of whether what is set up can work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import NamedTuple

import typer

from router.core import clock
from router.core.command_error import CommandError
from router.core.settings import RouterSettings, is_loopback, read_settings
from router.identity import accounts_database, login, pseudonyms
from router.identity.http_fetch import ProviderUnavailable, SignInRefused
from router.identity.oidc import LEEWAY_S, Provider

GOOGLE = "https://accounts.google.com"
_GOOGLE_CLIENT = ".apps.googleusercontent.com"


class CheckResult(StrEnum):
    """How a check ended: well, with something to know, or with something to mend."""

    OK = "ok"
    NOTE = "note"
    FAILED = "FAILED"


class SetupFinding(NamedTuple):
    """One printed line: the result of a check, and a sentence that says what to do where it failed."""

    result: CheckResult
    sentence: str


def examine() -> None:
    """Print every finding. Raises CommandError when one failed."""
    failed = asyncio.run(_examine())
    if failed:
        raise CommandError(f"{failed} of the checks above failed.")


async def _examine() -> int:
    settings = read_settings()
    if not settings.has_sign_in:
        typer.echo(_SETUP_STEPS.format(redirect_uri=settings.redirect_uri))
    failed = 0
    async for finding in findings(settings):
        typer.echo(f"{finding.result:<6}  {finding.sentence}")
        failed += finding.result is CheckResult.FAILED
    return failed


async def findings(settings: RouterSettings) -> AsyncIterator[SetupFinding]:
    """The findings of every check that this machine can make, the simplest first."""
    yield _address_finding(settings)
    for finding in _store_findings(settings):
        yield finding
    if not settings.has_sign_in:
        yield SetupFinding(CheckResult.NOTE, "Sign-in is not set up: whoever reaches this router is its guest.")
        return
    yield _client_finding(settings)
    yield SetupFinding(CheckResult.NOTE, f"The provider must have this redirect URI on record: {settings.redirect_uri}")
    async for finding in _provider_findings(settings):
        yield finding


def _address_finding(settings: RouterSettings) -> SetupFinding:
    if settings.public_url is not None:
        return SetupFinding(CheckResult.OK, f"The public address is {settings.origin}, by https.")
    if is_loopback(settings.host):
        return SetupFinding(CheckResult.OK, f"The router serves this machine alone, at {settings.origin}.")
    return SetupFinding(
        CheckResult.FAILED, f"{settings.host} is open to others: set up sign-in and ROUTER_PUBLIC_URL (https)."
    )


def _store_findings(settings: RouterSettings) -> list[SetupFinding]:
    found = accounts_database.inspect(settings.state_dir)
    if found is None:
        store = SetupFinding(CheckResult.OK, "The account store is made at the first start.")
    elif not found.sound:
        store = SetupFinding(
            CheckResult.FAILED, "The account store is damaged. The next start sets it aside and fails closed."
        )
    elif not found.trusted:
        cure = "Restore it, or accept the loss: router accounts confirm"
        store = SetupFinding(CheckResult.FAILED, f"The account store was lost: every job is managed only. {cure}")
    else:
        store = SetupFinding(CheckResult.OK, "The account store is whole.")
    return [store, *(_pepper_findings(settings, found) if settings.has_sign_in else [])]


def _pepper_findings(settings: RouterSettings, store: accounts_database.StoreHealth | None) -> list[SetupFinding]:
    given = settings.pepper.get_secret_value() if settings.pepper is not None else None
    path = settings.state_dir / pseudonyms.FILE
    expected = store.peppers if store is not None else {}
    if given is None and not path.exists():
        if expected:
            return [SetupFinding(CheckResult.FAILED, f"The pepper is lost: bring {path} back before the next start.")]
        return [
            SetupFinding(
                CheckResult.OK, f"The pepper is made at the first start: {path}. Keep a copy, not beside the store."
            )
        ]
    try:
        known = pseudonyms.load_peppers(settings.state_dir, given)
    except CommandError as command_error:
        return [SetupFinding(CheckResult.FAILED, f"Pepper: {command_error}")]
    where = "ROUTER_PEPPER" if given is not None else str(path)
    wrong = [version for version, mark in expected.items() if known.fingerprints().get(version) != mark]
    if wrong:
        which = ", ".join(map(str, wrong))
        return [SetupFinding(CheckResult.FAILED, f"{where} lacks the pepper {which} that the accounts were made with.")]
    versions = ", ".join(map(str, known.versions))
    return [SetupFinding(CheckResult.OK, f"The pepper is in {where}, for its owner alone; versions: {versions}.")]


def _client_finding(settings: RouterSettings) -> SetupFinding:
    if settings.oidc_issuer == GOOGLE and not str(settings.oidc_client_id).endswith(_GOOGLE_CLIENT):
        return SetupFinding(
            CheckResult.FAILED, f"ROUTER_OIDC_CLIENT_ID is none of Google's: they end in {_GOOGLE_CLIENT}."
        )
    return SetupFinding(CheckResult.OK, f"A client id and its secret are set, for {settings.oidc_issuer}.")


async def _provider_findings(settings: RouterSettings) -> AsyncIterator[SetupFinding]:
    secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else ""
    provider = Provider(settings.oidc_issuer, str(settings.oidc_client_id), secret, settings.redirect_uri)
    try:
        metadata = await provider.metadata()
        yield SetupFinding(CheckResult.OK, "The provider answers and describes itself as it should.")
        yield _clock_finding(metadata.clock_ahead_s)
        trial, _ = login.begin_attempt(b"a trial of the doctor's", clock.now())
        if await provider.accepts_redirect_uri(trial):
            yield SetupFinding(CheckResult.OK, "The provider shows its page for this client and this redirect URI.")
        else:
            yield SetupFinding(
                CheckResult.FAILED, "The provider refuses this client id or redirect URI: compare both with its record."
            )
        yield _SECRET_FINDINGS[await provider.accepts_secret()]
    except ProviderUnavailable:
        yield SetupFinding(
            CheckResult.FAILED, f"{settings.oidc_issuer} gives no answer. Is this machine allowed to ask it?"
        )
    except SignInRefused as refused:
        yield SetupFinding(
            CheckResult.FAILED, f"The provider's answer can't be used ({refused.reason}). Is the issuer right?"
        )


def _clock_finding(ahead_s: float | None) -> SetupFinding:
    if ahead_s is None:
        return SetupFinding(CheckResult.NOTE, "The provider does not say what time it is.")
    if abs(ahead_s) > LEEWAY_S:
        side = "behind" if ahead_s > 0 else "ahead of"
        return SetupFinding(
            CheckResult.FAILED, f"This clock is {abs(ahead_s):.0f} s {side} the provider's; {LEEWAY_S} are allowed."
        )
    return SetupFinding(CheckResult.OK, f"This clock and the provider's agree within {LEEWAY_S} s.")


_SECRET_FINDINGS = {
    True: SetupFinding(CheckResult.OK, "The provider accepts the client's secret."),
    False: SetupFinding(CheckResult.FAILED, "The provider refuses the client's secret. Copy it again."),
    None: SetupFinding(CheckResult.NOTE, "The provider does not say whether the client's secret is right."),
}
_SETUP_STEPS = """\
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
