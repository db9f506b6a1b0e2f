"""Who is asking. Without an identity provider the router serves loopback only, and whoever asks is the guest."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import Request

GUEST = "guest"


class Account(NamedTuple):
    """All that is known of a person: a pseudonym."""

    id: str
    kind: str


def account_of(request: Request) -> Account:
    """The account of a request. The socket listens on loopback only while this is the only way in (`app`)."""
    return Account(GUEST, "guest")
