"""The input and output of a check: the installation that it looks at, and its findings."""

from __future__ import annotations

from typing import NamedTuple

from router.core.settings import RouterSettings


class Finding(NamedTuple):
    """A result of a check: what was looked at, whether it holds (None: can't be told from here), and the cure."""

    what: str
    holds: bool | None
    cure: str = ""


class Installation(NamedTuple):
    """What is checked: the settings, and the address at which a router answers, if one does."""

    settings: RouterSettings
    url: str | None
