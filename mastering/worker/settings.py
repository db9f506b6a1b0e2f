"""What an operator can set: environment variables `MASTERING_WORKER_…`, each with its default."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from mastering.contract import MAX_INPUT_BYTES
from mastering.exchange import HEARTBEAT_S


class WorkerSettings(BaseSettings):
    """Settings of one worker process."""

    model_config = SettingsConfigDict(env_prefix="MASTERING_WORKER_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
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
    max_references: Annotated[int, Field(ge=0, le=100)] = 4
    """Reference tracks in one request."""
    drain_s: Annotated[float, Field(ge=0)] = 300.0
    """Seconds a stopping worker gives its running renders."""
    heartbeat_s: Annotated[float, Field(gt=0)] = HEARTBEAT_S
    """Seconds between the heartbeats of a render."""
    engine: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.]+:[a-zA-Z0-9_]+$")] = "mastering.engine:master"
    """The function that masters, as module:function."""
