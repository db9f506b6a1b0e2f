"""Tells which URLs are of Hugging Face Spaces: to no other host may a Space's token or song go."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_hub_host(url: str) -> bool:
    """Whether it is an https URL below hf.space without path, query or user."""
    try:
        parts = urlsplit(url)
        is_plain = parts.path in ("", "/") and not parts.query and "@" not in parts.netloc
        return parts.scheme == "https" and (parts.hostname or "").endswith(".hf.space") and is_plain
    except ValueError:
        return False
