"""The parts of sign-in in one record: OpenID provider, peppers and sessions, as `router.app` joined them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from router.identity.port import Sessions
from router.identity.pseudonyms import Peppers

if TYPE_CHECKING:
    from router.identity.oidc import Provider  # Authlib takes a quarter of a second that a router without sign-in saves


class SignIn(NamedTuple):
    """What a router with sign-in has; one without serves this machine alone, and every request is the guest's."""

    origin: str
    """Scheme and authority of the public address, as browsers send it in `Origin`."""
    provider: Provider
    peppers: Peppers
    sessions: Sessions

    @property
    def is_https(self) -> bool:
        return self.origin.startswith("https:")
