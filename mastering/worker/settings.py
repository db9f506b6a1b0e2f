"""What an operator can set: environment variables `MASTERING_WORKER_…`, each with its default."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from mastering.contract import MAX_INPUT_BYTES
from mastering.contract.kinds import MASTER
from mastering.protocol.frames import HEARTBEAT_S
from mastering.protocol.signing import checked_secret, is_loopback


class WorkerSettings(BaseSettings):
    """Settings of one worker process."""

    model_config = SettingsConfigDict(env_prefix="MASTERING_WORKER_", frozen=True, extra="ignore")

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$")] = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8101
    """Port to listen on; 0 takes a free one and says it in the first log line."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    """Renders at the same time."""
    slot_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds a reserved slot waits for its upload to begin."""
    upload_stall_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds without a byte after which an upload, or a caller that takes no answer, is given up."""
    max_render_s: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds one render may take; a caller may ask for less."""
    max_input_bytes: Annotated[int, Field(gt=0)] = MAX_INPUT_BYTES
    """Bytes of audio, and of each reference."""
    max_output_bytes: Annotated[int, Field(gt=0)] = 8 << 30
    """Bytes that all outputs of one render may have together; they are held in memory."""
    max_references: Annotated[int, Field(ge=0, le=100)] = 4
    """Reference tracks in one request."""
    drain_s: Annotated[float, Field(ge=0)] = 300.0
    """Seconds a stopping worker gives its running renders."""
    heartbeat_s: Annotated[float, Field(gt=0)] = HEARTBEAT_S
    """Seconds between the heartbeats of a render."""
    allow_incomplete_sandbox: bool = False
    """Whether to render although this machine can't refuse a rendering process all that it should; health tells it."""
    engine: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.]+:[a-zA-Z0-9_]+$")] = MASTER.run
    """The function that makes masters, as module:function (`JobKind.run`)."""
    keys: dict[str, SecretStr] = Field(default_factory=dict)
    """The callers' keys, as JSON: {"key id": "secret of 32 bytes or more"}. Two ids at a time let a key be changed."""
    authority: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._:\[\]-]+$")] = None
    """The name and port that callers know this worker by, where a proxy changes the Host header."""
    tls_certificate: Path | None = None
    """Certificate chain (PEM); with it the worker speaks TLS 1.3 and nothing else."""
    tls_key: Path | None = None
    """The certificate's private key (PEM)."""

    @property
    def secrets(self) -> dict[str, bytes]:
        return {key_id: secret.get_secret_value().encode() for key_id, secret in self.keys.items()}

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        for secret in self.secrets.values():
            checked_secret(secret)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS needs both MASTERING_WORKER_TLS_CERTIFICATE and MASTERING_WORKER_TLS_KEY")
        if not is_loopback(self.host) and not (self.keys and self.tls_certificate):
            raise ValueError(
                f"{self.host} can be reached by other machines: set MASTERING_WORKER_KEYS, "
                "MASTERING_WORKER_TLS_CERTIFICATE and MASTERING_WORKER_TLS_KEY, or listen on 127.0.0.1"
            )
        return self


class WrongSettingError(ValueError):
    """A setting that can't be: the text names it in a line and shows no value, which may be a secret."""


def read_settings(given: Mapping[str, Any]) -> WorkerSettings:
    """The settings by environment and by what is `given`. Raises WrongSettingError."""
    try:
        return WorkerSettings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise WrongSettingError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    except SettingsError as error:  # what is no JSON; its text names the field
        name = str(error).partition('"')[2].partition('"')[0]
        raise WrongSettingError(f"{name}: MASTERING_WORKER_{name.upper()} is JSON, see {__name__}") from None


def misspelt_variables() -> list[str]:
    """A sentence for each variable `MASTERING_WORKER_…` that nothing reads, with the nearest that is read."""
    prefix = "MASTERING_WORKER_"
    known = [prefix + name.upper() for name in WorkerSettings.model_fields]
    sentences = []
    for name in sorted(os.environ):
        if name.upper().startswith(prefix) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else "."
            sentences.append(f"{name} is no setting and changes nothing{hint}")
    return sentences
