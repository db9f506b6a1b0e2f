"""Reads backends' HTTP responses other than audio: limited in size, never decompressed, of any content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Annotated, Any

import httpx
from pydantic import Field, TypeAdapter

from router.tiers.policy.faults import FaultClass, TierFault

MAX_RESPONSE_BYTES = 256 * 1024
"""Far more than any answer has that is read whole; audio is streamed."""
NO_COMPRESSION = {"accept-encoding": "identity"}
"""Headers of every request: a compressed response of a few bytes could expand to gigabytes."""
_MAX_DIGITS = 6
"""Of a Retry-After in seconds: eleven days, longer than any quota's period."""


_ShortText = Annotated[str, Field(max_length=128)]
_SANDBOX_GAPS = TypeAdapter(Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=32)] | None)
_KINDS: TypeAdapter[dict[str, dict[str, str]]] = TypeAdapter(
    Annotated[dict[_ShortText, dict[_ShortText, _ShortText]], Field(max_length=64)]
)
_PACES: TypeAdapter[dict[str, frozenset[str]]] = TypeAdapter(
    Annotated[dict[_ShortText, Annotated[frozenset[_ShortText], Field(max_length=64)]], Field(max_length=64)]
)


class ResponseTooLarge(httpx.TransportError):
    """A response that is compressed, or larger than MAX_RESPONSE_BYTES."""


async def request(http: httpx.AsyncClient, method: str, url: str, **content: Any) -> httpx.Response:
    """Send a request and read its whole response, if that is small. Raises httpx.HTTPError."""
    headers = {**(content.pop("headers", None) or {}), **NO_COMPRESSION}
    async with http.stream(method, url, headers=headers, **content) as response:
        return await read_whole(response)


async def read_whole(response: httpx.Response) -> httpx.Response:
    """Read the rest of a streamed response, if it is small. Raises httpx.HTTPError."""
    refuse_encoded(response.headers)
    body = b""
    async for chunk in response.stream:  # type: ignore[union-attr]
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise ResponseTooLarge("long")
    return httpx.Response(response.status_code, headers=response.headers, content=body, request=response.request)


def response_of(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> httpx.Response:
    """Make a response of what another HTTP client received. Raises httpx.HTTPError."""
    if len(body) > MAX_RESPONSE_BYTES:
        raise ResponseTooLarge("long")
    response = httpx.Response(status, headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])
    refuse_encoded(response.headers)
    return httpx.Response(status, headers=response.headers, content=body)


def refuse_encoded(headers: Mapping[str, str] | Message) -> None:
    """Raise ResponseTooLarge for a compressed body."""
    if headers.get("content-encoding", "identity") != "identity":
        raise ResponseTooLarge("packed")


def json_body(response: httpx.Response) -> Any:
    """The response's JSON; None where it is none."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def retry_after_s(retry_after: str, otherwise: float) -> float:
    """The seconds of a Retry-After header; `otherwise` where it is not a number of at most six digits."""
    is_number = retry_after.isascii() and retry_after.isdecimal() and len(retry_after) <= _MAX_DIGITS
    return float(retry_after) if is_number else otherwise


def short_text(value: Any, longest: int) -> str:
    """A value as text of at most `longest` characters that can be encoded as UTF-8."""
    return str(value)[:longest].encode("utf-8", "replace").decode()


def sandbox_gaps_in(body: Any) -> tuple[str, ...] | None:
    """What a health says that its sandbox lacks; None where it does not say. Raises ValueError for anything else."""
    return _SANDBOX_GAPS.validate_python(body)


def kinds_in(body: Any) -> dict[str, dict[str, str]]:
    """The kinds of jobs that a health names, with their models' digests. Raises ValueError for anything else."""
    return _KINDS.validate_python(body)


def paces_in(body: Any) -> dict[str, frozenset[str]] | None:
    """Kinds of jobs with those of their paces that a health names; None where it names none. Raises ValueError."""
    return None if body is None else _PACES.validate_python(body)


@contextmanager
def translate_errors(who: str, *, reached: bool) -> Iterator[None]:
    """Turn the HTTP client's errors into tier faults, without their texts, which may hold addresses.

    `reached`: the song is on its way to `who`. Before that no fault can be of the song's making.
    """
    broken = FaultClass.CRASH if reached else FaultClass.UNREACHABLE
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise TierFault(FaultClass.UNREACHABLE, f"{who} can't be reached") from None
    except httpx.TimeoutException:
        raise TierFault(broken, f"{who} fell silent") from None
    except ResponseTooLarge:
        raise TierFault(FaultClass.BUG if reached else broken, f"{who}'s answer is not one that is read") from None
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL):
        raise TierFault(broken, f"the connection to {who} broke") from None
