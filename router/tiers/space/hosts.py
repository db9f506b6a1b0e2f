"""Which hosts are Hugging Face's: a token or a song may go to no other in a Space's name."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_of_hub(url: str) -> bool:
    """Whether it is an address at which the Hub runs Spaces."""
    try:
        parts = urlsplit(url)
        is_plain = parts.path in ("", "/") and not parts.query and "@" not in parts.netloc
        return parts.scheme == "https" and (parts.hostname or "").endswith(".hf.space") and is_plain
    except ValueError:
        return False
