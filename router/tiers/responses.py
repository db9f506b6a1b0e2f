"""What a backend says that is not audio: read to a limit, never unpacked, and believed to be anything at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any

import httpx

from router.tiers.policy.faults import FaultClass, TierFault

MAX_ANSWER_BYTES = 256 * 1024
IDENTITY = {"accept-encoding": "identity"}
"""Goes with every request: a packed answer of a few bytes could be gigabytes."""
_MAX_DIGITS = 6


class ResponseTooLarge(httpx.TransportError):
    """An answer that is packed, or larger than any that we have a use for."""


async def ask(http: httpx.AsyncClient, method: str, url: str, **content: Any) -> httpx.Response:
    """The whole answer, if it is a small one. Raises httpx.HTTPError."""
    headers = {**(content.pop("headers", None) or {}), **IDENTITY}
    async with http.stream(method, url, headers=headers, **content) as response:
        return await whole(response)


async def whole(response: httpx.Response) -> httpx.Response:
    """The rest of an answer that is being streamed, if it is small. Raises httpx.HTTPError."""
    refuse_packed(response.headers)
    body = b""
    async for chunk in response.stream:  # type: ignore[union-attr]
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ResponseTooLarge("long")
    return httpx.Response(response.status_code, headers=response.headers, content=body, request=response.request)


def of_parts(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> httpx.Response:
    """An answer that came another way. Raises httpx.HTTPError."""
    if len(body) > MAX_ANSWER_BYTES:
        raise ResponseTooLarge("long")
    response = httpx.Response(status, headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])
    refuse_packed(response.headers)
    return httpx.Response(status, headers=response.headers, content=body)


def refuse_packed(headers: Mapping[str, str] | Message) -> None:
    """Raises httpx.HTTPError."""
    if headers.get("content-encoding", "identity") != "identity":
        raise ResponseTooLarge("packed")


def json_of(response: httpx.Response) -> Any:
    """What it says, None where that is no JSON."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def seconds(retry_after: str, otherwise: float) -> float:
    """What a Retry-After header says; `otherwise` where it says no sane number of seconds."""
    is_number = retry_after.isascii() and retry_after.isdecimal() and len(retry_after) <= _MAX_DIGITS
    return float(retry_after) if is_number else otherwise


def text(value: Any, longest: int) -> str:
    """A backend's word, short and good to be written anywhere."""
    return str(value)[:longest].encode("utf-8", "replace").decode()


@contextmanager
def translated(who: str, *, reached: bool) -> Iterator[None]:
    """Library errors become tier faults; their texts, which may hold addresses, stay behind.

    `reached`: the song is on its way to `who`. Before that nothing can be the song's doing.
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
