"""The path below which a Gradio app has its API: read from its configuration, and never on another host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SAFE_PATH = re.compile(r"(/[\w-]+)*/?", re.ASCII)


class ForeignHostError(Exception):
    """The app's configuration sends its callers to another host."""


def api_prefix_of(config: Mapping[str, Any]) -> str:
    """The path, without slashes around it. Raises ForeignHostError for anything that is not a plain path."""
    prefix = config.get("api_prefix") or ""
    if not isinstance(prefix, str) or _SAFE_PATH.fullmatch(prefix) is None:
        raise ForeignHostError
    return prefix.strip("/")
