"""Conditional requests (RFC 9110 §13): whether a header names the state that an answer has."""

from __future__ import annotations


def names_etag(header: str, etag: str) -> bool:
    """Whether an If-None-Match or If-Match names `etag`, which is quoted; weakly too. `*` names every one."""
    named = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in named or etag in named
