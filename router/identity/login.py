"""One attempt to sign in, bound to the browser that began it, remembered by nobody else.

The browser holds a random value in a short-lived cookie; state, nonce and PKCE verifier are derived from it under a
secret of this boot. So nothing is stored for people who only look, any replica with the secret can finish what another
began, and a changed cookie gives another state than the one that comes back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import NamedTuple

LIFETIME_S = 600
THEN = frozenset({"", "account"})
"""Pages of ours where an attempt may lead: no address from outside is ever followed."""


class LoginAttempt(NamedTuple):
    """What is sent to the provider and must come back, and where the person goes afterwards."""

    state: str
    nonce: str
    verifier: str
    then: str


def begin(secret: bytes, now_s: float, then: str = "") -> tuple[LoginAttempt, str]:
    """A new attempt and the cookie that holds it."""
    cookie = f"{int(now_s)}.{secrets.token_urlsafe(32)}.{then if then in THEN else ''}"
    return _derived(secret, cookie), cookie


def resume(secret: bytes, now_s: float, cookie: str) -> LoginAttempt | None:
    """The attempt that the cookie holds; None when it is too old or none of ours."""
    began, _, rest = cookie.partition(".")
    if not (began.isascii() and began.isdecimal()) or len(cookie) > 100 or rest.rpartition(".")[2] not in THEN:
        return None
    if not 0 <= now_s - int(began) < LIFETIME_S:
        return None
    return _derived(secret, cookie)


def _derived(secret: bytes, cookie: str) -> LoginAttempt:
    def part(name: str) -> str:
        digest = hmac.digest(secret, f"sign-in {name}\0{cookie}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    return LoginAttempt(part("state"), part("nonce"), part("verifier"), cookie.rpartition(".")[2])
