"""Rate limits that keep no address: people are counted by account, strangers in one of 65,536 slots that a key of this
process chooses from their network's prefix (/24 or /56), in RAM, for ten minutes at most.

Whoever shows valid credentials is counted by them alone, so that no neighbour's requests shut anybody out. A slot tells
nothing about a network: without the key it can't be found, the key dies with the process, and every slot is shared by
some 256 networks of IPv4. Requests from this machine itself are not counted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.core.errors import Problem
from router.core.settings import RouterSettings
from router.http import problems

_NEW_JOB = re.compile(r"POST /v1/(jobs|uploads)/?")
_SIGN_IN = re.compile(r"\w+ /sign-in/callback")


SIGN_IN_REFUSED = "router.sign_in_refused"
"""Set in the scope of a callback that the provider was asked about and that proved nobody: only these count."""


class LimitRule(NamedTuple):
    """One rate limit and its name in the RateLimit headers."""

    name: str
    item: RateLimitItem


class NetworkSlots:
    """The slots that networks count in, by a key of this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, address: IPv4Address | IPv6Address) -> str:
        """The slot of the address's network, 4 hexadecimal digits."""
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        plain = mapped or address
        prefix = plain.packed[:3] if isinstance(plain, IPv4Address) else plain.packed[:7]
        return hmac.digest(self._key, prefix, hashlib.sha256)[:2].hex()


class RateLimiter:
    """ASGI middleware: counts, refuses with 429, and says in RateLimit headers what is left.

    `account_of` gives the account that a request's valid credentials name, or None.
    """

    def __init__(
        self, app: ASGIApp, settings: RouterSettings, account_of: Callable[[Request], Awaitable[str | None]]
    ) -> None:
        self._app, self._proxies, self._account_of = app, settings.forwarded_by, account_of
        self._slots = NetworkSlots()
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = LimitRule("requests", RateLimitItemPerMinute(settings.requests_per_minute))
        self._jobs = LimitRule("jobs", RateLimitItemPerMinute(settings.new_jobs_per_10_minutes, 10))
        failures = RateLimitItemPerMinute(settings.failed_sign_ins_per_10_minutes, 10)
        self._failures = LimitRule("failed sign-ins", failures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = client_address(scope, self._proxies) if scope["type"] == "http" else None
        if address is None:
            return await self._app(scope, receive, send)
        account = await self._account_of(Request(scope))
        counted, unit = (f"account {account}", "account") if account else (self._slots.of(address), "network")
        request = f"{scope['method']} {scope['path']}"
        rules = [self._requests, self._jobs] if _NEW_JOB.fullmatch(request) else [self._requests]
        allowed = [await self._limiter.hit(rule.item, rule.name, counted) for rule in rules]
        if _SIGN_IN.fullmatch(request):  # counted when it has failed
            rules.append(self._failures)
            allowed.append(await self._limiter.test(self._failures.item, self._failures.name, counted))
        rule = rules[allowed.index(False)] if False in allowed else rules[-1]

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if all(allowed) and rule is self._failures and SIGN_IN_REFUSED in scope:
                    await self._limiter.hit(rule.item, rule.name, counted)
                left, wait_s = await self._left(rule, counted)
                headers = MutableHeaders(scope=message)
                for name, value in _headers(rule, left, wait_s).items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = None if all(allowed) else _refusal(rule, unit, (await self._left(rule, counted))[1])
        app = problems.respond(refusal) if refusal else self._app
        await app(scope, receive, send_counted)

    async def _left(self, rule: LimitRule, counted: str) -> tuple[int, int]:
        """How many are left of a rule, and seconds until they are more."""
        reset_time, left = await self._limiter.get_window_stats(rule.item, rule.name, counted)
        return left, max(1, round(reset_time - time.time()))


def client_address(scope: Scope, proxies: Sequence[IPv4Network | IPv6Network]) -> IPv4Address | IPv6Address | None:
    """The address that a request comes from, behind trusted proxies. None for this machine itself, or where it is not
    known."""
    peer = _address((scope.get("client") or ("",))[0])
    if peer is None or not _is_in(peer, proxies):
        return None if peer is None or peer.is_loopback else peer
    said = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
    for hop in reversed(said):  # the nearest proxy writes last; what a caller wrote himself stands before
        address = _address(hop.strip())
        if address is None:
            break
        if not _is_in(address, proxies):
            return address
    return peer


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _refusal(rule: LimitRule, unit: str, wait_s: int) -> Problem:
    most, window_s = rule.item.amount, rule.item.get_expiry()
    sentence = f"At most {most} {rule.name} in {window_s} s are answered for one {unit}. Try again in {wait_s} s."
    return Problem("rate_limited", sentence, retry_after_s=wait_s, allowed=most, window_s=window_s)


def _headers(rule: LimitRule, left: int, reset_s: int) -> dict[str, str]:
    """The RateLimit headers (draft-ietf-httpapi-ratelimit-headers-10)."""
    policy = f'"{rule.name}";q={rule.item.amount};w={rule.item.get_expiry()}'
    return {"ratelimit-policy": policy, "ratelimit": f'"{rule.name}";r={left};t={reset_s}'}
