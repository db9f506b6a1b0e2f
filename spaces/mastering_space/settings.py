"""The settings of a Space: variables and secrets `MASTERING_SPACE_…` on its settings page."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES
from mastering.contract.kinds import MASTER

MIB = 1024 * 1024

SpaceKind = Literal["zero_gpu", "cpu"]


class SpaceSettings(BaseSettings):
    """Settings of one Space."""

    model_config = SettingsConfigDict(env_prefix="MASTERING_SPACE_", frozen=True, extra="ignore")

    key: SecretStr | None = None
    """A secret that callers must show as x-mastering-key; without it Hugging Face alone decides who may call."""
    concurrency: Annotated[int, Field(ge=1, le=16)] = 2
    """Renders at the same time: a Space's free hardware has two processors."""
    places: Annotated[int, Field(ge=1, le=256)] = 8
    """Jobs that may hold an input at the same time, those that render included."""
    max_bytes: Annotated[int, Field(gt=0)] = min(256 * MIB, MAX_INPUT_BYTES)
    """Bytes of a song, and of each reference."""
    max_duration_s: Annotated[float, Field(gt=0)] = MAX_DURATION_S
    """Longest song that is mastered here; the Space's health says so."""
    memory_bytes: Annotated[int, Field(gt=0)] = 2048 * MIB
    """Bytes that all inputs and outputs together may hold, with what is reserved for running renders."""
    max_references: Annotated[int, Field(ge=0, le=16)] = 4
    """Reference tracks of one job."""
    keep_s: Annotated[float, Field(gt=0, le=60)] = 60.0
    """Seconds after which an input nobody renders, or an output nobody fetches, is dropped."""
    stall_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds without a byte, of an upload or a download or from the rendering process, after which it is given up."""
    upload_s: Annotated[float, Field(gt=0)] = 900.0
    """Seconds that one upload may take."""
    max_render_s: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds one render may take, its wait for a slot included; a caller may ask for less."""
    allow_incomplete_sandbox: bool = False
    """Whether to render although this machine can't refuse a rendering process all that it should; health tells it."""
    engine: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.]+:[a-zA-Z0-9_]+$")] = MASTER.run
    """The function that masters, as module:function."""


class WrongSettingError(ValueError):
    """A setting that can't be: the text names its variable in a line and shows no value, which may be a secret."""


def read_settings() -> SpaceSettings:
    """The settings by environment. Raises WrongSettingError."""
    try:
        return SpaceSettings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = "_".join(map(str, first["loc"])).upper()
        raise WrongSettingError(f"MASTERING_SPACE_{name}: {first['msg']}") from None
