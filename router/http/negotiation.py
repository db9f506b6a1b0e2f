"""What a caller prefers, by the weights of its Accept and Accept-Encoding (RFC 9110 §12)."""

from __future__ import annotations

import re
from urllib.request import parse_http_list

from starlette.datastructures import Headers

EVENT_STREAM = "text/event-stream"
_WEIGHT = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?")


def combined(headers: Headers, name: str) -> str:
    """A header's value; several lines of it are one list (RFC 9110 §5.3)."""
    return ", ".join(headers.getlist(name))


def prefers_events(headers: Headers) -> bool:
    """Whether Accept names server-sent events, and JSON at most as gladly. A wildcard alone asks for no stream."""
    weights = _weights(combined(headers, "accept"))
    as_events = weights.get(EVENT_STREAM, 0.0)
    return as_events > 0 and as_events >= _first(weights, "application/json", "application/*", "*/*")


def takes_gzip(headers: Headers) -> bool:
    """Whether Accept-Encoding allows gzip, and asks for no coding at most as gladly."""
    weights = _weights(combined(headers, "accept-encoding"))
    packed = _first(weights, "gzip", "x-gzip", "*")
    return packed > 0 and packed >= _first(weights, "identity", "*")


def _first(weights: dict[str, float], *names: str) -> float:
    """The weight of the first of these names that is stated: the most specific comes first."""
    return next((weights[name] for name in names if name in weights), 0.0)


def _weights(header: str) -> dict[str, float]:
    """Name in small letters → weight. What states a weight that is none is left out."""
    found: dict[str, float] = {}
    for part in parse_http_list(header):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        stated = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        if _WEIGHT.fullmatch(stated):
            found[name] = max(float(stated), found.get(name, 0.0))
    return found
