"""Every setting of the router, by environment variable (``ROUTER_…``), command line or default."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES
from router.core.command_error import CommandError

GIB = 1024**3


def _shm() -> Path:
    return Path(f"/dev/shm/mastering-router-{os.getuid()}")  # noqa: S108 — RAM-backed is the point; mode 0700 and ours


def _state() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "mastering-router"


def _spool() -> Path:
    return Path(f"/var/tmp/mastering-router-{os.getuid()}/spool")  # noqa: S108 — ciphertext only; mode 0700 and ours


class RouterSettings(BaseSettings):
    """The router's settings, read once at its start. Each field's description is shown in the docs."""

    model_config = SettingsConfigDict(env_prefix="ROUTER_", extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on. Anything but loopback needs sign-in."
    )
    port: int = Field(8080, ge=0, le=65535, description="Port of the page and the API.")
    public_url: str | None = Field(
        None,
        pattern=r"^https://[a-z0-9.-]+(:\d{1,5})?$",
        description="Address by which people reach this router through its proxy, like https://master.example.",
    )
    forwarded_by: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Networks of the proxies whose X-Forwarded-For is believed, as a JSON list; it feeds the rate"
        " limits alone.",
    )
    profile: Literal["standalone", "space"] = Field(
        "standalone", description="`space` where the router itself runs as a Hugging Face Space, inside its frame."
    )
    requests_per_minute: int = Field(
        600, ge=1, description="Requests that an account, or a network (/24 or /56) of strangers, may send a minute."
    )
    new_jobs_per_10_minutes: int = Field(
        60, ge=1, description="Jobs that an account, or a network of guests, may open in ten minutes."
    )
    failed_sign_ins_per_10_minutes: int = Field(
        30, ge=1, description="Sign-ins of a network that may fail in ten minutes."
    )
    oidc_client_id: str | None = Field(
        None, description="Client id that the sign-in provider gave this router; without one there is no sign-in."
    )
    oidc_client_secret: SecretStr | None = Field(None, description="The secret that belongs to the client id.")
    oidc_issuer: str = Field(
        "https://accounts.google.com", description="The OpenID provider. http:// on loopback only, for tests."
    )
    pepper: SecretStr | None = Field(
        None,
        description="Secrets behind the pseudonyms, `2:HEX,1:HEX`, newest first; else the file `pepper` beside"
        " the durable store, made at the first start.",
    )
    workers: tuple[str, ...] = Field((), description="URLs of managed workers, as a JSON list.")
    worker_key_id: str = Field("router", description="Name under which the workers know the key below.")
    worker_secret: SecretStr | None = Field(
        None, description="Key shared with the workers, 32 bytes or more: requests are signed, bodies sealed."
    )
    worker_authority: Path | None = Field(
        None, description="Certificates (PEM) of the authority that vouches for the workers, if it is a private one."
    )
    hf_token: SecretStr | None = Field(
        None, description="Hugging Face token with which the Hub is asked, and Spaces are called whose entry says so."
    )
    space_key: SecretStr | None = Field(
        None, description="Key that our own Spaces want with every call (their secret MASTERING_SPACE_KEY)."
    )
    catalogue: Path | None = Field(
        None, description="TOML file of all backends with their terms; read again when it changes or on SIGHUP."
    )
    admin_host: str = Field("127.0.0.1", min_length=1, description="Address of the operators' port. Loopback only.")
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the operators' page, metrics and health; none if not set."
    )
    ram_dir: Path = Field(default_factory=_shm, description="RAM-backed folder for keys and job records.")
    ram_check: Literal["refuse", "warn"] = Field(
        "refuse", description="What follows when the RAM-backed folder is not RAM, is small, or can be swapped."
    )
    contact: str | None = Field(
        None,
        pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://[^\s]+)$",
        description="Where people and researchers write, as mailto: or https: address; shown with the policy.",
    )
    regions: tuple[str, ...] = Field(
        (), description="Regions in which songs may be rendered, as a JSON list; a backend elsewhere is refused."
    )
    state_dir: Path = Field(
        default_factory=_state, description="Folder of the one durable store: consent, token hashes, no audio."
    )
    log_dir: Path | None = Field(
        None, description="Folder for the log, a file a day kept for seven days; standard error if not set."
    )
    spool_dir: Path = Field(default_factory=_spool, description="Folder for encrypted audio.")
    spool_quota_bytes: int = Field(20 * GIB, gt=0, description="Room for encrypted audio, all jobs together.")
    spool_bytes_per_account: int | None = Field(
        None,
        gt=0,
        description="Room in the spool that an account may take; if not set a quarter of it all, or room for three of"
        " the largest uploads where that is more.",
    )
    max_bytes: int = Field(MAX_INPUT_BYTES, gt=0, description="Largest upload in bytes.")
    max_duration_s: float = Field(MAX_DURATION_S, gt=0, description="Longest song in seconds.")
    output_ttl_s: float = Field(55 * 60, gt=0, le=60 * 60, description="How long a master can be fetched, in seconds.")
    unsent_ttl_s: float = Field(
        10 * 60, gt=0, description="A job of which nothing was sent for so long ends, and its room is free again."
    )
    upload_silence_s: float = Field(60, gt=0, description="An upload that sends nothing for so long is put down.")
    response_stall_s: float = Field(
        60, gt=0, description="A response that its caller does not read for so long is ended with its connection."
    )
    response_bytes_per_s: int = Field(
        1024, ge=1, description="Who reads less than this a second, over that time, counts as not reading."
    )
    max_queued_per_account: int = Field(10, ge=1, description="Jobs an account may have waiting or running.")
    max_running_per_account: int = Field(2, ge=1, description="Jobs an account may have running.")
    streams_per_account: int = Field(
        20,
        ge=1,
        description="Event streams and waiting requests that an account may have open at once, and as many downloads"
        " beside them.",
    )
    daily_audio_s_per_account: int | None = Field(
        None, ge=1, description="Seconds of audio an account may have mastered a day; unlimited if not set."
    )
    concurrency: int = Field(8, ge=1, description="Attempts this router runs at once.")
    attempt_deadline_s: float = Field(30 * 60, gt=0, description="Longest time one attempt may take, in seconds.")
    allow_incomplete_sandbox: bool = Field(
        False,
        description="Read uploads although this machine can't refuse the probe all that it should; health tells it.",
    )
    probes: int = Field(2, ge=1, description="Files looked at at once.")
    body_threads: int = Field(
        32, ge=1, description="Threads that receive, encrypt, store, read and send audio; made as they are needed."
    )
    worker_threads: int = Field(
        1024,
        ge=1,
        description="Threads that talk to managed workers, one for each render in flight; made as they are needed.",
    )

    @field_validator(
        "host", "admin_host", "oidc_client_id", "oidc_client_secret", "worker_key_id", "hf_token", "space_key"
    )
    @classmethod
    def _can_be_sent(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None and not (text.isascii() and text.isprintable() and text == text.strip()):
            raise ValueError("a line break, a space at its ends or a letter beyond ASCII is in it")
        return value

    @field_validator("workers")
    @classmethod
    def _are_backends(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(backend_url(url) for url in urls)

    @field_validator("oidc_issuer")
    @classmethod
    def _is_secure(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("a URL like https://accounts.google.com is needed, without user, query or fragment")
        if not issuer.isprintable() or " " in issuer or parts.port == 0:  # `port` itself refuses one beyond 65535
            raise ValueError("it holds a space, a control character or an impossible port")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("https:// is needed; http:// is for loopback only")
        return issuer

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.oidc_client_id is None) != (self.oidc_client_secret is None):
            raise ValueError("oidc_client_id and oidc_client_secret come together")
        if self.oidc_client_id is not None and self.public_url is None and not (is_loopback(self.host) and self.port):
            raise ValueError("with sign-in public_url is needed: what browsers call this router")
        return self

    @property
    def share_bytes(self) -> int:
        """Room in the spool that an account may take."""
        return self.spool_bytes_per_account or max(self.spool_quota_bytes // 4, 3 * self.max_bytes)

    @property
    def has_sign_in(self) -> bool:
        """Whether people sign in with a provider; else one guest uses the router, on loopback."""
        return self.oidc_client_id is not None

    @property
    def origin(self) -> str:
        """Scheme and authority by which browsers reach this router."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url.removesuffix(":443") if self.public_url else f"http://{host}:{self.port}"

    @property
    def redirect_uri(self) -> str:
        """What the sign-in provider must have on record, to the letter."""
        return f"{self.origin}/sign-in/callback"


LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def backend_url(url: str) -> str:
    """The address of a worker or a Space. Raises ValueError for one that no audio may travel to."""
    parts = urlsplit(url)
    is_web = parts.scheme in ("http", "https") and parts.hostname and url.isprintable() and " " not in url
    # `port` itself refuses one beyond 65535.
    if not is_web or "@" in parts.netloc or parts.path not in ("", "/") or parts.query or parts.port == 0:
        raise ValueError("write it like https://host:port, without a user or a path")
    try:
        str(parts.hostname).encode("idna")
    except UnicodeError:
        raise ValueError("there can't be a host of that name") from None
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_NAMES:
        raise ValueError("audio travels by https only, except on loopback")
    return url


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    with suppress(ValueError):
        return host == "localhost" or ip_address(host).is_loopback
    return False


def refuse_strangers(host: str | None) -> None:
    """Raise CommandError for an address beyond this machine: without sign-in nobody from elsewhere may come in."""
    if host is None or is_loopback(urlsplit(host).hostname or host):
        return
    raise CommandError(
        f"Without sign-in this router serves this machine only, not {host}."
        " Listen on 127.0.0.1, or set up sign-in first: 'router doctor' says how."
    )


_OTHER_VARIABLES = frozenset({"ROUTER_TOKEN", "ROUTER_URL", "ROUTER_ADMIN_URL"})
"""What commands that speak to a running router read from the environment."""
_OF_PROXY = frozenset({"ROUTER_UPSTREAM", "ROUTER_HTTPS", "ROUTER_HTTP", "ROUTER_CERTIFICATE"})
"""What the shipped proxy's configuration (ops/proxy) reads: they may be exported for both."""


def read_settings(**given: Any) -> RouterSettings:
    """The settings by environment and by `given`; a variable that looks like one and is none is named on stderr.

    Raises CommandError, whose one line names what is wrong and shows no value: it may be a secret.
    """
    for sentence in misspelt_variables(os.environ):
        sys.stderr.write(f"router: {sentence}\n")
    try:
        return RouterSettings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        message = first["msg"].removeprefix("Value error, ").removesuffix(".")
        raise CommandError(f"setting {where}: {message}.", exit_code=2) from None
    except SettingsError as error:  # a list that is no JSON; its text ends with where it was read
        name = str(error).partition('"')[2].partition('"')[0]
        example = '["one", "two"]'
        raise CommandError(
            f"setting {name}: ROUTER_{name.upper()} is a JSON list, like {example}.", exit_code=2
        ) from None


def misspelt_variables(names: Iterable[str]) -> list[str]:
    """A sentence for each name `ROUTER_…` that nothing reads, with the nearest that is read."""
    known = {f"ROUTER_{name.upper()}" for name in RouterSettings.model_fields} | _OTHER_VARIABLES | _OF_PROXY
    sentences = []
    for name in sorted(names):
        if name.upper().startswith("ROUTER_") and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else "see docs/settings.md."
            sentences.append(f"{name} is no setting and changes nothing; {hint}")
    return sentences
