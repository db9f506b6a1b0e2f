"""What a check of the promises finds, and where it looks."""

from __future__ import annotations

from typing import NamedTuple

from router.core.settings import RouterSettings


class Finding(NamedTuple):
    """One look: what it is about, whether it is as promised, and what to do where it is not."""

    what: str
    holds: bool | None
    cure: str = ""


class Installation(NamedTuple):
    """What is looked at: the settings, and the address at which a router answers, if one does."""

    settings: RouterSettings
    url: str | None
