"""The ports of what outlives a request: accounts, which are durable, and browser sessions, which a reboot ends.

Asynchronous, for a store that is not on this machine; those of one machine (`accounts`, `sessions`) answer at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol


class Consent(NamedTuple):
    """What an account has agreed to, when (minutes since the epoch), and for which list of tiers."""

    managed_only: bool
    tiers_version: str
    minute: int


class Token(NamedTuple):
    """A token as its owner sees it; the secret itself was shown once and is not kept."""

    id: str
    account: str
    scope: str
    minute: int


class Session(NamedTuple):
    """A session as its owner may see it; times in seconds on the service's clock."""

    id: str
    account: str
    began_s: float
    seen_s: float


class Accounts(Protocol):
    """What accounts have agreed to, their tokens' hashes, their daily use, and backends' modes. No audio, no identity.

    It fails closed: where it was lost, every job is managed only until the operator confirms.
    """

    async def is_trusted(self) -> bool:
        """False after a loss, until the operator confirms."""
        ...

    async def confirm(self) -> None:
        """The operator accepts that what was lost is lost: accounts start with the service's default again."""
        ...

    async def expect_peppers(self, fingerprints: Mapping[int, bytes]) -> bool:
        """Note the peppers in use (version → fingerprint); whether they include all that the accounts were made with.

        Where one is lost or replaced, people come back as strangers and nobody can say any more who had refused which
        tiers: the store is not trusted from then on.
        """
        ...

    async def retire_pepper(self, version: int) -> int:
        """Erase a pepper's version and the accounts that are still under it, whom nobody can reach any more.

        Returns how many rows were erased.
        """
        ...

    async def rename_account(self, before: str, after: str) -> int:
        """Move the rows of the pseudonym `before` to `after`, except where the latter has its own; how many moved."""
        ...

    async def managed_only(self, account: str, tiers_version: str) -> bool:
        """Whether this account's jobs must stay on our own workers.

        An account that never said anything has the service's default, tiers in order. A consent that was given for
        another list of tiers does not cover this one.
        """
        ...

    async def consent(self, account: str) -> Consent | None:
        """What the account last said; None where it never said anything."""
        ...

    async def set_consent(self, account: str, consent: Consent) -> None:
        """Replace what the account has said before."""
        ...

    async def make_token(self, account: str, scope: str, minute: int) -> tuple[Token, str]:
        """A new token and its secret: 256 bits, shown once, kept as SHA-256 (no salt is needed at that length)."""
        ...

    async def token_of(self, secret: str) -> Token | None:
        """The token with this secret, if it is not revoked."""
        ...

    async def tokens(self, account: str) -> list[Token]:
        """The account's tokens, the oldest first."""
        ...

    async def revoke_token(self, account: str, token_id: str) -> bool:
        """End a token of the account; False if it has no such token."""
        ...

    async def used_audio_s(self, account: str, day: int) -> int:
        """Seconds of audio the account sent on `day` (days since the epoch)."""
        ...

    async def use_audio(self, account: str, day: int, audio_s: int) -> None:
        """Count audio against the day's quota; older days are forgotten."""
        ...

    async def backend_modes(self) -> dict[str, str]:
        """Backends that the operator has taken out: name → `draining` or `maintenance`."""
        ...

    async def set_backend_mode(self, name: str, mode: str | None) -> None:
        """Keep the operator's mode of a backend over restarts; None: it is ready again, which needs no row."""
        ...

    async def export(self, account: str) -> dict[str, list[dict[str, Any]]]:
        """Table → rows that name the account, whole but for the tokens' hashes."""
        ...

    async def erase(self, account: str) -> int:
        """Erase the account's rows, so that no file holds them any more. Returns how many there were."""
        ...


class Sessions(Protocol):
    """Browser sessions: 256 random bits in the person's cookie, and here their hash with a pseudonym and two times."""

    async def begin(self, account: str, replaces: str | None = None) -> str:
        """A new session; its secret, for the cookie.

        The session that the browser had before (`replaces`: its secret) ends, so that a secret which somebody planted
        before the login is worth nothing after it (session fixation).
        """
        ...

    async def find(self, secret: str) -> Session | None:
        """The session with this secret, if it has not ended; notes its use."""
        ...

    async def of(self, account: str) -> list[Session]:
        """The account's sessions, oldest first."""
        ...

    async def end(self, account: str, session_id: str) -> bool:
        """End one session; whether the account had it."""
        ...

    async def end_all(self, account: str) -> int:
        """End every session of the account; how many there were."""
        ...

    async def end_retired(self, versions: Iterable[int]) -> None:
        """End the sessions whose pseudonym was made with a pepper that is not of `versions`: its account is erased."""
        ...

    async def rename_account(self, before: str, after: str) -> None:
        """Move the sessions of the pseudonym `before` to `after`."""
        ...

    async def use_state(self, state: str, lifetime_s: float) -> bool:
        """Mark a login attempt's state as used for `lifetime_s`; False when it was used before (a replayed answer)."""
        ...
