"""Signatures of the requests to a worker (RFC 9421, with a shared key), and a key of its own for each body.

A signature covers method, authority, path, query, the slot and the content type, with a nonce and the time; a body
is sealed (`frames.Seal`) by a key derived from the shared one and the request's nonce, and so is the answer to it.
The two derived keys differ, so that no answer can be sent back as a request.

Light on purpose: both sides import it. The only door to http_message_signatures.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from urllib.parse import urlsplit

from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)

from mastering.protocol.frames import SLOT_HEADER

MIN_SECRET_BYTES = 32
"""As many as HMAC-SHA256 gives out: a shorter key would be easier to guess than a signature."""
MAX_AGE = timedelta(seconds=60)
"""Of a signature. A request is signed as it is sent."""
CLOCK_SKEW = timedelta(seconds=30)
"""By which the clocks of the two sides may differ."""
MAX_NONCES = 100_000
"""More requests than that in one window are refused: the record of nonces stays bounded."""

_TAG = "mastering"
_ALWAYS = ("@method", "@authority", "@path", "@query")
_WHERE_PRESENT = (SLOT_HEADER, "content-type")


class SignatureRefused(Exception):
    """A request that was not signed by a holder of the key, or was sent before. Its text is safe to show."""


@dataclass(frozen=True)
class Keys:
    """The keys that seal the two bodies of one exchange; None where the sides share no key."""

    request: bytes | None = None
    response: bytes | None = None


@dataclass(frozen=True)
class Signed:
    """A signed request's headers, and the keys for what goes out with it and comes back."""

    headers: dict[str, str]
    keys: Keys


@dataclass
class _SignedMessage:
    """A request in the form that http_message_signatures reads."""

    method: str
    url: str
    headers: Mapping[str, str]


class _Secrets(HTTPSignatureKeyResolver):
    def __init__(self, by_id: Mapping[str, bytes]) -> None:
        self._by_id = dict(by_id)

    def resolve_public_key(self, key_id: str) -> bytes | None:
        return self._by_id.get(key_id)

    def resolve_private_key(self, key_id: str) -> bytes:
        return self._by_id[key_id]


class Signer:
    """Signs the caller's requests."""

    def __init__(self, key_id: str, secret: bytes) -> None:
        """Raises ValueError where the secret is too short to be one."""
        self._key_id, self._secret = key_id, checked_secret(secret)
        self._signer = HTTPMessageSigner(
            signature_algorithm=algorithms.HMAC_SHA256, key_resolver=_Secrets({key_id: secret})
        )

    def sign(self, method: str, url: str, headers: Mapping[str, str], now: datetime | None = None) -> Signed:
        """`headers` with the signature's two beside them. `url` is absolute; `now` is for tests."""
        nonce, created = secrets.token_urlsafe(18), now or datetime.now(UTC)
        request = _SignedMessage(method, url, dict(headers))
        self._signer.sign(
            request,
            key_id=self._key_id,
            created=created,
            expires=created + MAX_AGE,
            nonce=nonce,
            label=_TAG,
            tag=_TAG,
            covered_component_ids=_covered(headers),
        )
        return Signed(dict(request.headers), _keys(self._secret, nonce))


@dataclass
class SignatureVerifier:
    """Verifies requests to a worker, and that each was sent once. Without keys it lets all pass.

    It keeps every nonce of the last minutes (MAX_AGE and twice CLOCK_SKEW).
    """

    secrets_by_id: Mapping[str, bytes]
    _seen: dict[str, float] = field(default_factory=dict)
    """Nonce -> the monotonic second after which the window has closed on it; the oldest first."""

    def __post_init__(self) -> None:
        for secret in self.secrets_by_id.values():
            checked_secret(secret)
        self._verifier = HTTPMessageVerifier(
            signature_algorithm=algorithms.HMAC_SHA256, key_resolver=_Secrets(self.secrets_by_id)
        )
        self._verifier.max_clock_skew = CLOCK_SKEW

    def verify(self, method: str, url: str, headers: Mapping[str, str], monotonic_s: float) -> Keys:
        """The keys of a request that is signed and new. Raises SignatureRefused."""
        if not self.secrets_by_id:
            return Keys()
        try:
            (found,) = self._verifier.verify(
                _SignedMessage(method, url, headers),
                max_age=MAX_AGE,
                expect_tag=_TAG,
                require_components=_covered(headers),
            )
        except (InvalidSignature, ValueError):
            raise SignatureRefused("The request is not signed with a key of this worker, or too long ago.") from None
        if not found.nonce:
            raise SignatureRefused("The signature has no nonce.")
        self._remember(found.nonce, monotonic_s)
        return _keys(self.secrets_by_id[str(found.parameters["keyid"])], found.nonce)

    def _remember(self, nonce: str, now: float) -> None:
        for old in _expired(self._seen.items(), now):
            del self._seen[old]
        if nonce in self._seen:
            raise SignatureRefused("This request was sent before.")
        if len(self._seen) >= MAX_NONCES:
            raise SignatureRefused("Too many requests in a short time.")
        # A signature may be dated ahead by the skew, and is taken for the skew after its age.
        self._seen[nonce] = now + (MAX_AGE + 2 * CLOCK_SKEW).total_seconds()


def _expired(seen: Iterable[tuple[str, float]], now: float) -> list[str]:
    expired = []
    for nonce, end in seen:
        if end > now:
            break
        expired.append(nonce)
    return expired


def _covered(headers: Mapping[str, str]) -> tuple[str, ...]:
    present = {name.lower() for name in headers}
    return (*_ALWAYS, *(name for name in _WHERE_PRESENT if name in present))


def _keys(secret: bytes, nonce: str) -> Keys:
    return Keys(_derived(secret, "request", nonce), _derived(secret, "response", nonce))


def _derived(secret: bytes, direction: str, nonce: str) -> bytes:
    return hmac.digest(secret, f"mastering {direction} body\0{nonce}".encode(), hashlib.sha256)


def checked_secret(secret: bytes) -> bytes:
    """Raises ValueError where the secret has fewer than 32 bytes."""
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the secret has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed: openssl rand -hex 32"
        )
    return secret


def is_loopback(host: str) -> bool:
    """True for an address that no other machine can reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def checked_url(url: str) -> str:
    """Raises ValueError for a worker's address whose bytes would travel in the clear."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ValueError("a worker's address starts with https://, or with http:// on this machine")
    return url


@cache
def client_tls(authority_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.3 or nothing, for the caller; `authority_file` names a private certificate authority (PEM).

    One for all workers: to read this machine's authorities takes 30 ms of a core.
    """
    context = ssl.create_default_context(cafile=authority_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
