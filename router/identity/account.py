"""Who a request is from: the guest of a router without sign-in, a signed-in person, or the owner of a token."""

from __future__ import annotations

from typing import Literal, NamedTuple

GUEST = "guest"
"""The one account of a router without sign-in, by id and by kind."""
SIGNED_OUT = "signed_out"
TokenScope = Literal["jobs", "read"]
"""What a personal token may do: everything with jobs, or only read."""


class Account(NamedTuple):
    """All that is known of a person: a pseudonym, and how the request proved it."""

    id: str
    kind: str
    """`guest`, `person` (by a session), `token`, or `signed_out`."""
    session: str = ""
    """Id of the session that the request came with, for its owner to tell it from the others."""
