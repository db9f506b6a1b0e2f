"""A fake OpenID provider on loopback: as strict as the standard asks, and as hostile as a test wants.

It enforces PKCE, one use per code, the exact redirect address and the client's secret, and it pushes a name and an
address that nobody asked for. `misbehave` changes its answers: discovery document, keys, the
redirect back, the token endpoint's answer, the ID token's header, claims and signature.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT_ID, CLIENT_SECRET = "our-client", "our-secret"
SUBJECT, EMAIL, NAME = "canary-sub-108204268033311374519", "canary.person@mail.example", "Canary Q. Person"
KID = "key-1"

Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def jwk_of(key: rsa.RSAPrivateKey, kid: str = KID) -> Json:
    numbers = key.public_key().public_numbers()
    n = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": b64(n), "e": b64(numbers.e.to_bytes(3))}


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def signed(header: Json, claims: Json, sign: Callable[[bytes], bytes]) -> str:
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(sign(text.encode()))}"


def rs256(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.digest(secret, text, hashlib.sha256)


@dataclass
class ProviderResponse:
    """The response of an endpoint: a status, headers and a body."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})

    @classmethod
    def of(cls, found: object, status: int = 200) -> ProviderResponse:
        return cls(json.dumps(found).encode(), status)

    def packed(self) -> ProviderResponse:
        return ProviderResponse(gzip.compress(self.body), self.status, {**self.headers, "content-encoding": "gzip"})


@dataclass
class Misbehaviour:
    """Changes to the provider's answers: each function gets the right value and returns the one that is sent."""

    discovery: Callable[[Json], Json] = lambda found: found
    keys: Callable[[list[Json]], list[Json]] = lambda keys: keys
    answer: Callable[[Json], Json] = lambda query: query
    header: Callable[[Json], Json] = lambda header: header
    claims: Callable[[Json], Json] = lambda claims: claims
    sign: Callable[[bytes], bytes] | None = None
    id_token: Callable[[str], Any] = lambda token: token
    tokens: Callable[[ProviderResponse], ProviderResponse] = lambda answer: answer


class FakeProvider:
    """The provider's state and endpoints; `issuer` is its address."""

    def __init__(self) -> None:
        self.key = new_key()
        self.misbehave = Misbehaviour()
        self.asked: list[tuple[str, str, Json]] = []
        """Method, path and parameters of every request, in order."""
        self.issuer = ""
        self.handed_out: list[tuple[str, Json]] = []
        """Every code that was redeemed, with the tokens for it."""
        self._codes: dict[str, Json] = {}

    def count(self, path: str) -> int:
        return sum(asked[1] == path for asked in self.asked)

    def discovery(self) -> ProviderResponse:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return ProviderResponse.of(self.misbehave.discovery(found))

    def jwks(self) -> ProviderResponse:
        return ProviderResponse.of({"keys": self.misbehave.keys([jwk_of(self.key)])})

    def authorize(self, query: Json) -> ProviderResponse:
        """The login page: the person agrees at once."""
        wrong = [
            name
            for name, right in {"client_id": CLIENT_ID, "response_type": "code", "scope": "openid"}.items()
            if query.get(name) != right
        ]
        wrong += [name for name in ("state", "nonce", "code_challenge", "redirect_uri") if not query.get(name)]
        wrong += [name for name in ("access_type", "prompt", "login_hint") if name in query]
        if wrong or query.get("code_challenge_method") != "S256":
            return ProviderResponse.of({"error": "invalid_request", "error_description": " ".join(wrong)}, 400)
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        answer = self.misbehave.answer({"code": code, "state": query["state"], "iss": self.issuer})
        return ProviderResponse(b"", 303, {"location": f"{query['redirect_uri']}?{urlencode(answer)}"})

    def token(self, form: Json, authorization: str) -> ProviderResponse:
        right = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {right}":
            return ProviderResponse.of({"error": "invalid_client"}, 401)
        asked = self._codes.pop(str(form.get("code")), None)
        challenge = b64(hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest())
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            return ProviderResponse.of({"error": "invalid_grant"}, 400)
        tokens = self.tokens(asked["nonce"])
        self.handed_out.append((str(form["code"]), tokens))
        return self.misbehave.tokens(ProviderResponse.of(tokens))

    def tokens(self, nonce: str) -> Json:
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        now = int(time.time())
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims = {
            "iss": self.issuer, "aud": CLIENT_ID, "sub": SUBJECT, "iat": now, "exp": now + 600, "nonce": nonce,
            "at_hash": b64(half), "email": EMAIL, "email_verified": True, "name": NAME, "picture": f"https://x/{EMAIL}",
        }  # fmt: skip
        header = self.misbehave.header({"alg": "RS256", "typ": "JWT", "kid": KID})
        id_token = signed(header, self.misbehave.claims(claims), self.misbehave.sign or rs256(self.key))
        pushed = {"refresh_token": refresh, "email": EMAIL, "name": NAME, "token_type": "Bearer", "expires_in": 600}
        return {"access_token": access, "id_token": self.misbehave.id_token(id_token), **pushed}

    def userinfo(self) -> ProviderResponse:
        return ProviderResponse.of({"sub": SUBJECT, "email": EMAIL, "name": NAME})


@contextmanager
def openid_provider() -> Iterator[FakeProvider]:
    """A running provider."""
    provider = FakeProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            provider.asked.append(("GET", parts.path, query))
            match parts.path:
                case "/.well-known/openid-configuration":
                    self._say(provider.discovery())
                case "/jwks":
                    self._say(provider.jwks())
                case "/authorize":
                    self._say(provider.authorize(query))
                case "/userinfo":
                    self._say(provider.userinfo())
                case _:
                    self._say(ProviderResponse.of({}, 404))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            provider.asked.append(("POST", self.path, form))
            self._say(provider.token(form, self.headers.get("authorization", "")))

        def _say(self, answer: ProviderResponse) -> None:
            self.send_response_only(answer.status)
            for name, value in {"date": self.date_time_string(), **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def settings_of(provider: FakeProvider) -> dict[str, Any]:
    """A router's settings for signing in at `provider`."""
    return {
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
    }
