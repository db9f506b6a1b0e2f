"""An OpenID Connect client: asks the provider who a person is. The only module to import Authlib and joserfc.

Authorization code with PKCE (S256), scope `openid` and nothing else. Authlib's own checks accepted an empty or foreign
audience, an empty subject and `alg=none` where the provider's metadata lists it, so everything that must hold is stated
here: RS256, issuer, audience, subject, times, nonce. Every other claim is dropped unread, and so are both tokens.
OpenID Connect Core 1.0 §3.1.3.7, Discovery 1.0 §4.3, RFC 7636, RFC 9207, RFC 9700. Every check of a sign-in stands in
this one file, hence its length: none is to be missed between two.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jws, jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import RSAKey

from router.identity.http_fetch import (
    DEADLINE_S,
    ProviderAnswerTooLarge,
    ProviderUnavailable,
    SignInRefused,
    client_options,
    clock_ahead_s,
    get_json,
    request_provider,
)
from router.identity.login import LoginAttempt

T = TypeVar("T")
LEEWAY_S = 30
"""Seconds that the provider's clock may differ from ours. A machine that keeps time is within one second."""
METADATA_TTL_S = 3600.0
"""Seconds for which the provider's discovery document is used before it is read again."""
MAX_TOKEN_CHARS = 16 * 1024
"""Longest ID token that is parsed; those with the scope `openid` alone have about a thousand characters."""
MAX_SUBJECT_CHARS = 255
"""OpenID Connect Core 1.0 §2: a subject is at most 255 ASCII characters."""
SMALLEST_KEY_BITS = 2048
"""Shortest RSA key that is accepted (RFC 7518 §3.3)."""
_CLAIMS_READ = frozenset({"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash"})


class ProviderMetadata(NamedTuple):
    """The parts of the provider's discovery document that are used."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    sends_issuer: bool
    """RFC 9207: each authorization response carries the provider's issuer (`iss`)."""
    secret_in: str
    """Where the token endpoint takes the client's secret: `client_secret_basic` or `client_secret_post`."""
    read_at_s: float
    clock_ahead_s: float | None
    """Seconds its clock is ahead of ours, for `router doctor`: a clock that is off makes every sign-in fail."""


class Provider:
    """A client, registered as `client_id`, of the OpenID provider `issuer`."""

    def __init__(self, issuer: str, client_id: str, client_secret: str, redirect_uri: str) -> None:
        self.issuer = issuer
        self._client_id, self._client_secret, self._redirect_uri = client_id, client_secret, redirect_uri
        self._metadata: ProviderMetadata | None = None
        self._keys: list[dict[str, Any]] | None = None

    async def authorization_url(self, attempt: LoginAttempt) -> str:
        """The provider's address to send the browser to. Raises SignInRefused, ProviderUnavailable."""
        metadata = await self.metadata()
        async with self._client() as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return str(url)

    async def identify(self, attempt: LoginAttempt, answer: Mapping[str, str], derive: Callable[[str, str], T]) -> T:
        """`derive(issuer, subject)` for the person whom the provider's answer to `attempt` names.

        The subject itself goes no further than this call. Raises SignInRefused, ProviderUnavailable.
        """
        metadata = await self.metadata()
        code = self._code(metadata, attempt, answer)
        tokens = await self._tokens(metadata, code, attempt.verifier)
        id_token = tokens.get("id_token")
        if not isinstance(id_token, str) or len(id_token) > MAX_TOKEN_CHARS:
            raise SignInRefused("no_id_token" if id_token is None else "malformed")
        claims = await self._signed_claims(metadata, id_token)
        self._check(claims, attempt.nonce, tokens.get("access_token"))
        return derive(self.issuer, claims["sub"])

    async def metadata(self) -> ProviderMetadata:
        """The discovery document, read again each hour. Raises SignInRefused, ProviderUnavailable."""
        known = self._metadata
        if known is not None and time.monotonic() - known.read_at_s < METADATA_TTL_S:
            return known
        found, response = await get_json(get_well_known_url(self.issuer, external=True))
        if found.get("issuer") != self.issuer:
            raise SignInRefused("discovery_of_another_issuer")
        methods = found.get("token_endpoint_auth_methods_supported")
        in_body = isinstance(methods, list) and "client_secret_basic" not in methods
        self._keys = None
        self._metadata = ProviderMetadata(
            self._endpoint(found, "authorization_endpoint"),
            self._endpoint(found, "token_endpoint"),
            self._endpoint(found, "jwks_uri"),
            found.get("authorization_response_iss_parameter_supported") is True,
            "client_secret_post" if in_body else "client_secret_basic",
            time.monotonic(),
            clock_ahead_s(response),
        )
        return self._metadata

    async def accepts_redirect_uri(self, attempt: LoginAttempt) -> bool:
        """Whether the provider would show its login page to a browser, as far as a request from here tells.

        Raises SignInRefused, ProviderUnavailable.
        """
        response = await request_provider("GET", await self.authorization_url(attempt))
        return response.status_code < 400 and "error" not in response.headers.get("location", "")

    async def accepts_secret(self) -> bool | None:
        """Whether the provider accepts our secret, by its answer to a made-up code; None where that does not tell.

        A provider authenticates the client before it looks at the code (RFC 6749 §5.2: `invalid_client` against
        `invalid_grant`). Raises SignInRefused, ProviderUnavailable.
        """
        metadata = await self.metadata()
        form = {"grant_type": "authorization_code", "code": "nobodys", "redirect_uri": self._redirect_uri}
        basic = metadata.secret_in == "client_secret_basic"  # noqa: S105 — where the secret goes, not what it is
        own = {"client_id": self._client_id, "client_secret": self._client_secret}
        response = await request_provider(
            "POST",
            metadata.token_endpoint,
            data={**form, "code_verifier": "0" * 43, **({} if basic else own)},
            auth=(self._client_id, self._client_secret) if basic else None,
        )
        if response.status_code == 401 or b"invalid_client" in response.content:
            return False
        return True if b"invalid_grant" in response.content else None

    def _endpoint(self, found: dict[str, Any], name: str) -> str:
        url = found.get(name)
        scheme = urlsplit(self.issuer).scheme
        if not isinstance(url, str) or not url.startswith(f"{scheme}://") or not urlsplit(url).hostname:
            raise SignInRefused("discovery_without_endpoints")
        return url

    def _client(self, secret_in: str | None = None) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            self._client_id,
            self._client_secret,
            token_endpoint_auth_method=secret_in,
            scope="openid",
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            **client_options(),
        )

    def _code(self, metadata: ProviderMetadata, attempt: LoginAttempt, answer: Mapping[str, str]) -> str:
        """The authorization code, of an answer that is this provider's and to this attempt. Raises SignInRefused."""
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise SignInRefused("wrong_state")
        named = answer.get("iss")
        if named != self.issuer if named is not None else metadata.sends_issuer:
            raise SignInRefused("answer_of_another_issuer")
        if "error" in answer:
            raise SignInRefused("declined" if answer["error"] == "access_denied" else "provider_error")
        code = answer.get("code", "")
        if not code or len(code) > 4096:
            raise SignInRefused("no_code")
        return code

    async def _tokens(self, metadata: ProviderMetadata, code: str, verifier: str) -> Mapping[str, Any]:
        """Exchange the code for tokens at the token endpoint. Raises SignInRefused, ProviderUnavailable."""
        grant = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        try:
            async with asyncio.timeout(DEADLINE_S), self._client(metadata.secret_in) as client:
                client.register_compliance_hook("access_token_response", _only_ok)
                tokens: Mapping[str, Any] = await client.fetch_token(metadata.token_endpoint, **grant)
        except OAuthError:
            raise SignInRefused("code_refused") from None
        except ProviderAnswerTooLarge:
            raise SignInRefused("too_long") from None
        except (httpx2.HTTPError, TimeoutError):
            raise ProviderUnavailable("provider_silent") from None
        except (ValueError, TypeError, AttributeError, KeyError):  # an answer that is not the JSON of RFC 6749 §5.1
            raise SignInRefused("no_tokens") from None
        return tokens

    async def _signed_claims(self, metadata: ProviderMetadata, id_token: str) -> CodeIDToken:
        """The claims in _CLAIMS_READ of an ID token whose signature is the provider's.

        Raises SignInRefused, ProviderUnavailable.
        """
        try:
            header = jws.extract_compact(id_token.encode()).headers()
        except (JoseError, ValueError):
            raise SignInRefused("malformed") from None
        if header.get("alg") != "RS256" or "crit" in header:
            raise SignInRefused("wrong_algorithm")
        key = _key_of(header, await self._key_set(metadata))
        if key is None:  # the provider may have changed its keys since: read them once more, not oftener
            key = _key_of(header, await self._key_set(metadata, again=True))
        if key is None:
            raise SignInRefused("unknown_key")
        try:
            if _bits_of(key) < SMALLEST_KEY_BITS:
                raise SignInRefused("weak_key")
            token = jwt.decode(id_token, RSAKey.import_key(key), algorithms=["RS256"])
        except (JoseError, ValueError, TypeError, KeyError):
            raise SignInRefused("bad_signature") from None
        read = {name: value for name, value in token.claims.items() if name in _CLAIMS_READ}
        return CodeIDToken(read, token.header, self._claim_rules(), {"client_id": self._client_id})

    async def _key_set(self, metadata: ProviderMetadata, *, again: bool = False) -> list[dict[str, Any]]:
        if self._keys is None or again:
            found, _ = await get_json(metadata.jwks_uri)
            keys = found.get("keys")
            self._keys = [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []
        return self._keys

    def _claim_rules(self) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self._client_id},
            "sub": {"essential": True},
            "exp": {"essential": True},
            "iat": {"essential": True},
            "nonce": {"essential": True},
        }

    def _check(self, claims: CodeIDToken, nonce: str, access_token: object) -> None:
        """Raise SignInRefused unless the claims are for us, valid now, and in answer to this attempt (`nonce`)."""
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS or not subject.isprintable():
            raise SignInRefused("bad_sub")
        if claims.get("aud") not in (self._client_id, [self._client_id]):
            raise SignInRefused("bad_aud")
        for name in ("exp", "iat", "nbf"):
            value = claims.get(name, 0)
            # Not a number is neither before nor after anything, and JSON as Python reads it can say NaN.
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SignInRefused(f"bad_{name}")
        if claims.get("azp", self._client_id) != self._client_id:
            raise SignInRefused("bad_azp")
        if not isinstance(claims.get("nonce"), str):
            raise SignInRefused("bad_nonce")
        if "at_hash" in claims and not (isinstance(claims["at_hash"], str) and isinstance(access_token, str)):
            raise SignInRefused("bad_at_hash")
        claims.params |= {"nonce": nonce, "access_token": access_token}
        try:
            claims.validate(leeway=LEEWAY_S)
        except ClaimError as error:
            raise SignInRefused(f"bad_{error.claim.partition(',')[0]}") from None


def _only_ok(response: httpx2.Response) -> httpx2.Response:
    """Refuse every status but 200: Authlib itself reads tokens out of any, out of a redirect's body too."""
    if response.status_code >= 500 or response.status_code == 429:
        raise ProviderUnavailable("provider_broken")
    if response.status_code != 200:
        raise SignInRefused("no_tokens" if response.is_redirect else "code_refused")
    return response


def _key_of(header: Mapping[str, Any], keys: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The RS256 key that the token's header names, or the only one where it names none; None if not unique."""
    kid = header.get("kid")
    fitting = [
        key
        for key in keys
        if key.get("kty") == "RSA"
        and key.get("use", "sig") == "sig"
        and key.get("alg", "RS256") == "RS256"
        and (kid is None or key.get("kid") == kid)
    ]
    return fitting[0] if len(fitting) == 1 else None


def _bits_of(key: dict[str, Any]) -> int:
    """Length of the RSA modulus. Raises ValueError for one that is not base64url."""
    return int.from_bytes(urlsafe_b64decode(str(key.get("n", "")) + "==")).bit_length()
