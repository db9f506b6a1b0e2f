"""The editions of the privacy policy: `make docs` opens one, dated today, when what the policy says has changed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from router.web.pages import privacy_policy

FILE = Path(privacy_policy.__file__).parent / "policy.toml"
_HEAD = """\
# Editions of the privacy policy, the one in force last. Each binds a date to the digest of all that the policy
# says for the shipped catalogue. Written by `make docs` when that changes, and then with that day's date.
"""


def is_current() -> bool:
    """Whether the last edition is of what the policy says now, and editions stand in the order of their dates."""
    known = privacy_policy.editions()
    dates = [edition.date for edition in known]
    return bool(known) and known[-1].digest == privacy_policy.digest() and dates == sorted(set(dates))


def open_edition(today: dt.date) -> None:
    """Add an edition of the policy with today's date; one that was made earlier today is replaced."""
    known = {edition.date: edition.digest for edition in privacy_policy.editions() if edition.date < today}
    known[today] = privacy_policy.digest()
    tables = [f'\n[[edition]]\ndate = {date}\ndigest = "{digest}"\n' for date, digest in known.items()]
    FILE.write_text(_HEAD + "".join(tables), "utf-8")
    privacy_policy.editions.cache_clear()
