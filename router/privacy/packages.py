"""Checks of the installed packages: pinned together, recently, by checksums, and without known vulnerabilities."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from router.privacy.finding import Finding, Installation

_LOCK_DAYS = 30
"""Age in days at which the lock should be made anew, so that security fixes arrive within a month."""


def dependencies(_: Installation) -> Iterator[Finding]:
    """Packages are those of constraints.txt, resolved within _LOCK_DAYS, locked by checksums, without known holes."""
    checkout = Path(__file__).parents[2]
    lock = checkout / "constraints.txt"
    if lock.is_file():
        pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))
        other = sorted(name for name, version in pinned.items() if (_installed(name) or version) != version)
        cure = f"{', '.join(other[:8])} differ from constraints.txt: make setup"
        yield Finding("what is installed is what was resolved together", not other, cure)
        age_days = _age_days(lock.read_text())
        yield Finding(f"it was resolved {age_days:.0f} days ago", age_days <= _LOCK_DAYS, "make lock, then the tests")
        locks = sorted((checkout / "locks").glob("*.txt"))
        strays = [stray for held in locks for stray in unlocked(held.read_text(), pinned)]
        cure = f"{', '.join(strays[:8]) or 'locks/ is missing'}: python -m ops.lock_hashes writes them anew"
        yield Finding("what is installed for service is held by checksums", bool(locks) and not strays, cure)
    else:
        yield Finding(
            "what is installed is what was resolved together", None, "compare pip freeze with constraints.txt"
        )
    yield _audited()


def unlocked(lock: str, pinned: Mapping[str, str]) -> list[str]:
    """Names of packages that the lock has without a checksum, or in another version than was resolved."""
    versions = {_normal(name): version for name, version in pinned.items()}
    found = []
    for requirement in re.split(r"^(?=\w)", lock, flags=re.MULTILINE)[1:]:
        name, _, version = requirement.split(maxsplit=1)[0].partition("==")
        is_resolved = version and version == versions.get(_normal(name), version)
        if "--hash=sha256:" not in requirement or not is_resolved:
            found.append(name)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _age_days(lock: str) -> float:
    """Days since the date in the lock's first line, which `make lock` writes."""
    found = re.search(r"\d{4}-\d\d-\d\d", lock.partition("\n")[0])
    resolved = dt.date.fromisoformat(found[0]) if found else dt.date.min
    return (dt.datetime.now(dt.UTC).date() - resolved).days


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _audited() -> Finding:
    what, cure = "no known hole in what is installed", "make audit looks them up"
    if importlib.util.find_spec("pip_audit") is None:
        return Finding(what, None, cure)
    argv = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--skip-editable", "--format", "json"]
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 — ours
        return audit_finding(json.loads(ended.stdout)["dependencies"], what, cure)
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return Finding(what, None, f"the index of known holes can't be reached from here: {cure}")


def audit_finding(audited: Sequence[Mapping[str, Any]], what: str, cure: str) -> Finding:
    """The finding of pip-audit's result. A package that it could not look up does not count as one without holes."""
    found = [one["name"] for one in audited if one.get("vulns")]
    if found:
        return Finding(what, False, f"take newer ones of {', '.join(found)}: make lock")
    missed = [one["name"] for one in audited if "skip_reason" in one and one["name"] != "mastering-router"]
    if missed:
        return Finding(what, None, f"the index of known holes knows nothing of {len(missed)} packages: {cure}")
    return Finding(what, True)
