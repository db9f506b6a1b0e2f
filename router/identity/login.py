"""One login attempt: state, nonce and PKCE verifier, derived from a cookie of the browser that began it.

The cookie holds a random value; the three are HMACs of it under a secret of this boot. So nothing is stored for people
who only look, any replica with the secret can finish what another began, and a changed cookie gives another state than
the one that comes back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import NamedTuple

LIFETIME_S = 600
"""Seconds from the redirect to the provider until the answer must be back: time to find a password."""
THEN = frozenset({"", "account"})
"""Paths of ours that may be shown after the login: no address from outside is ever followed."""


class LoginAttempt(NamedTuple):
    """Values sent to the provider that its answer is checked against, and the path (`then`) to show afterwards."""

    state: str
    nonce: str
    verifier: str
    then: str


def begin_attempt(secret: bytes, now_s: float, then: str = "") -> tuple[LoginAttempt, str]:
    """A new attempt and the value of its cookie. A `then` that is not in THEN is dropped."""
    cookie = f"{int(now_s)}.{secrets.token_urlsafe(32)}.{then if then in THEN else ''}"
    return _derived(secret, cookie), cookie


def resume_attempt(secret: bytes, now_s: float, cookie: str) -> LoginAttempt | None:
    """The attempt of a cookie; None when it is older than LIFETIME_S or not in our form."""
    began, _, rest = cookie.partition(".")
    if not (began.isascii() and began.isdecimal()) or len(cookie) > 100 or rest.rpartition(".")[2] not in THEN:
        return None
    if not 0 <= now_s - int(began) < LIFETIME_S:
        return None
    return _derived(secret, cookie)


def _derived(secret: bytes, cookie: str) -> LoginAttempt:
    def derived(name: str) -> str:
        digest = hmac.digest(secret, f"sign-in {name}\0{cookie}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    return LoginAttempt(derived("state"), derived("nonce"), derived("verifier"), cookie.rpartition(".")[2])
