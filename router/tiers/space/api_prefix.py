"""Below which path a Gradio app has its addresses: it says so itself, and must not name another host by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PREFIX = re.compile(r"(/[\w-]+)*/?", re.ASCII)


class ElsewhereError(Exception):
    """The app sends its callers somewhere else."""


def prefix_in(config: Mapping[str, Any]) -> str:
    """The path, without slashes around it. Raises ElsewhereError."""
    prefix = config.get("api_prefix") or ""
    if not isinstance(prefix, str) or _PREFIX.fullmatch(prefix) is None:
        raise ElsewhereError
    return prefix.strip("/")
