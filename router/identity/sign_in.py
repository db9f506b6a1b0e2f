"""The way in, where people are told apart: provider, pseudonyms and sessions, as `app` joined them."""

from __future__ import annotations

from typing import NamedTuple

from router.identity.oidc import Provider
from router.identity.pseudonyms import Peppers
from router.identity.sessions import Sessions


class SignIn(NamedTuple):
    """A router without one serves this machine only, and whoever asks is the guest."""

    origin: str
    """Scheme and authority of our public address: what browsers call us."""
    provider: Provider
    peppers: Peppers
    sessions: Sessions

    @property
    def is_https(self) -> bool:
        return self.origin.startswith("https:")
