"""The grade that Mozilla's HTTP Observatory would give, by its published table of modifiers.

https://developer.mozilla.org/en-US/observatory/docs/tests_and_scoring: 100 points, less penalties; bonuses count where
90 are left. Only what an answer's headers can show is judged; preloading and subresource integrity earn nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http.cookies import Morsel, SimpleCookie

_SIX_MONTHS_S = 15_768_000
_PRIVATE = {"no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"}


def score(headers: Mapping[str, str], cookies: Sequence[str] = ()) -> int:
    """Points of an answer over HTTPS with these headers (names in lower case) and Set-Cookie lines."""
    policy = _directives(headers.get("content-security-policy", ""))
    modifiers = [
        _content_security_policy(policy),
        _cookies([morsel for line in cookies for morsel in SimpleCookie(line).values()]),
        -50 if headers.get("access-control-allow-origin") == "*" else 0,
        _strict_transport(headers.get("strict-transport-security", "")),
        _referrer(headers.get("referrer-policy")),
        0 if headers.get("x-content-type-options") == "nosniff" else -5,
        _framing(policy, headers.get("x-frame-options", "").upper()),
        {"same-origin": 10, "same-site": 10, None: 0}.get(headers.get("cross-origin-resource-policy"), 0),
    ]
    kept = 100 + sum(modifier for modifier in modifiers if modifier < 0)
    return kept + sum(modifier for modifier in modifiers if modifier > 0) if kept >= 90 else max(0, kept)


def _directives(policy: str) -> dict[str, list[str]]:
    found = [part.split() for part in policy.split(";") if part.strip()]
    return {name.lower(): values for name, *values in found}


def _content_security_policy(policy: dict[str, list[str]]) -> int:
    if not policy:
        return -25
    scripts = policy.get("script-src", policy.get("default-src"))
    objects = policy.get("object-src", policy.get("default-src"))
    broad = {"'unsafe-inline'", "data:", "https:", "http:", "*"}
    if scripts is None or objects is None or broad & {*scripts, *objects}:
        return -20
    if "'unsafe-eval'" in scripts:
        return -10
    if any(source.startswith("http:") for sources in policy.values() for source in sources):
        return -20
    if broad & set(policy.get("style-src", policy.get("default-src", []))):
        return 0
    return 10 if policy.get("default-src") == ["'none'"] else 5


def _cookies(cookies: Sequence[Morsel[str]]) -> int:
    if not cookies:
        return 0
    if not all(cookie["secure"] for cookie in cookies):
        return -40
    if not all(cookie["httponly"] for cookie in cookies):
        return -30
    same_site = [cookie["samesite"].lower() for cookie in cookies]
    if any(value not in ("strict", "lax", "") for value in same_site):
        return -20
    return 5 if all(same_site) else 0


def _strict_transport(value: str) -> int:
    age = re.search(r"max-age=(\d+)", value)
    if age is None:
        return -20
    return 0 if int(age[1]) >= _SIX_MONTHS_S else -10


def _referrer(value: str | None) -> int:
    if value is None:
        return 0
    return 5 if value in _PRIVATE else -5


def _framing(policy: dict[str, list[str]], option: str) -> int:
    if policy.get("frame-ancestors"):
        return 5
    return 0 if option in ("DENY", "SAMEORIGIN") else -20
