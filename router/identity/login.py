"""Login attempts: state, nonce and PKCE verifier of each, derived from a cookie of the browser that began it.

The cookie holds a random value for each attempt that is under way, since a person may sign in in several tabs at once;
the three are HMACs of it under a secret of this boot. So nothing is stored for people who only look, any replica with
the secret can finish what another began, and a changed cookie gives another state than the one that comes back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import NamedTuple

LIFETIME_S = 600
"""Seconds from the redirect to the provider until the answer must be back: time to find a password."""
MOST_ATTEMPTS = 5
"""Of one browser at once; a new one beyond that drops the oldest."""
THEN = frozenset({"", "account"})
"""Paths of ours that may be shown after the login: no address from outside is ever followed."""
_SEPARATOR = "~"
"""Of the attempts in a cookie."""


class LoginAttempt(NamedTuple):
    """Values sent to the provider that its answer is checked against, and the path (`then`) to show afterwards."""

    state: str
    nonce: str
    verifier: str
    then: str


def begin_attempt(secret: bytes, now_s: float, then: str = "", cookie: str | None = None) -> tuple[LoginAttempt, str]:
    """A new attempt and the value of the cookie that holds it beside those of `cookie`, the browser's present one.

    A `then` that is not in THEN is dropped.
    """
    begun = f"{int(now_s)}.{secrets.token_urlsafe(32)}.{then if then in THEN else ''}"
    under_way = [*_under_way(now_s, cookie), begun][-MOST_ATTEMPTS:]
    return _derived(secret, begun), _SEPARATOR.join(under_way)


def attempts_of(secret: bytes, now_s: float, cookie: str | None) -> list[LoginAttempt]:
    """The attempts of a browser's cookie that are not older than LIFETIME_S."""
    return [_derived(secret, begun) for begun in _under_way(now_s, cookie)]


def without_attempt(secret: bytes, now_s: float, cookie: str | None, ended: LoginAttempt) -> str:
    """The value of the cookie once `ended` has come back; empty where no other is under way."""
    return _SEPARATOR.join(begun for begun in _under_way(now_s, cookie) if _derived(secret, begun) != ended)


def _under_way(now_s: float, cookie: str | None) -> list[str]:
    """The parts of a cookie that are in our form and not too old: when each began, its random value, its `then`."""
    return [begun for begun in (cookie or "").split(_SEPARATOR)[:MOST_ATTEMPTS] if _is_under_way(now_s, begun)]


def _is_under_way(now_s: float, begun: str) -> bool:
    began, _, rest = begun.partition(".")
    if not (began.isascii() and began.isdecimal()) or len(begun) > 100 or rest.rpartition(".")[2] not in THEN:
        return False
    return 0 <= now_s - int(began) < LIFETIME_S


def _derived(secret: bytes, begun: str) -> LoginAttempt:
    def derived(name: str) -> str:
        digest = hmac.digest(secret, f"sign-in {name}\0{begun}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    return LoginAttempt(derived("state"), derived("nonce"), derived("verifier"), begun.rpartition(".")[2])
