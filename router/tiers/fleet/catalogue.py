"""Reads the catalogue: the TOML file in which an operator lists the backends and their terms.

    [[backend]]
    name = "gpu-1"                      # on the dashboard and in records
    tier = "managed"                    # managed, gpu_space or cpu_space
    url = "https://gpu-1.example"       # of a worker; or of a Space, then protocol = "space"
    region = "eu-central"

    [[backend]]
    name = "zero"
    tier = "gpu_space"
    space = "owner/name"                # instead of a URL
    token = true                        # ours and private: show it ROUTER_HF_TOKEN
    max_duration_s = 600
    quota_s = 1500                      # seconds of its device per quota_period_s (a day)

    [[backend]]
    name = "other"
    tier = "cpu_space"
    url = "https://other.hf.space"
    protocol = "gradio"                 # any Gradio app that takes a file and gives one
    endpoint = "/predict"

Every error names the line. A file with an error changes nothing while the router runs.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mastering.contract import OutputFormat
from router.core.command_error import CommandError
from router.core.settings import backend_url
from router.tiers.fleet.member import BackendTerms
from router.tiers.space.hosts import is_hub_host

_TABLE_HEADER = re.compile(r"\s*\[\[\s*backend\s*\]\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


class CatalogueEntry(BaseModel):
    """One backend of the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="Unique; small letters, digits, -.")]
    tier: Annotated[Literal["managed", "gpu_space", "cpu_space"], Field(description="Which tier it belongs to.")]
    url: Annotated[str | None, Field(description="Address of the worker or Space; https unless on loopback.")] = None
    space: Annotated[
        str | None, Field(pattern=r"^[\w.-]+/[\w.-]+$", description="A Hugging Face Space as owner/name.")
    ] = None
    token: Annotated[
        bool,
        Field(
            description="Whether the Space itself is shown `ROUTER_HF_TOKEN`: only for a private one of your own,"
            " since whoever runs it can keep the token. The Hub is asked with it in any case."
        ),
    ] = False
    protocol: Annotated[
        Literal["worker", "space", "gradio"] | None,
        Field(
            description="How it is spoken to; by default `worker` in the managed tier, `space` in the others; `gradio`"
            " is any Gradio app that takes a file and gives one: no settings, no progress, no report."
        ),
    ] = None
    endpoint: Annotated[
        str, Field(pattern=r"^/[\w-]{1,64}$", description="Of a Gradio app: the name of the endpoint to call.")
    ] = "/predict"
    returns: Annotated[
        OutputFormat, Field(description="Of a Gradio app: the one format that it makes; it gets only jobs for that.")
    ] = OutputFormat.WAV24
    max_bytes: Annotated[int | None, Field(gt=0, description="Largest file it takes, in bytes.")] = None
    max_duration_s: Annotated[float | None, Field(gt=0, description="Longest song it takes, in seconds.")] = None
    quota_s: Annotated[float | None, Field(gt=0, description="Seconds of its device that may be used.")] = None
    quota_period_s: Annotated[float, Field(gt=0, description="After so many seconds the quota starts anew.")] = 86_400.0
    region: Annotated[str, Field(max_length=64, description="Where it stands; shown to people.")] = "here"
    operator: Annotated[str, Field(max_length=64, description="Who runs it; shown to people.")] = "this service"
    cost_per_hour: Annotated[float, Field(ge=0, description="What an hour costs, for the operators' page.")] = 0.0

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        return None if url is None else backend_url(url)

    @model_validator(mode="after")
    def _check_together(self) -> CatalogueEntry:
        if (self.url is None) == (self.space is None):
            raise ValueError("give either url or space")
        if self.token and self.space is None and not is_hub_host(self.url or ""):
            raise ValueError("the token is for Hugging Face alone: for a space, or a url below hf.space")
        if self.space is not None and self.effective_protocol == "worker":
            raise ValueError("a Space named by owner/name is spoken to by protocol = 'space' or 'gradio'")
        if self.tier == "managed" and self.effective_protocol != "worker":
            raise ValueError("the managed tier is of our own workers; a Space is gpu_space or cpu_space")
        return self

    @property
    def effective_protocol(self) -> Literal["worker", "space", "gradio"]:
        """`protocol`, or its tier's default."""
        return self.protocol or ("worker" if self.tier == "managed" else "space")

    @property
    def forgets(self) -> bool:
        """Whether it can be asked to keep nothing of a song."""
        return self.effective_protocol != "gradio"

    @property
    def terms(self) -> BackendTerms:
        return BackendTerms(**{name: getattr(self, name) for name in BackendTerms._fields})


def parse_catalogue(text: str, name: str = "catalogue") -> tuple[CatalogueEntry, ...]:
    """The entries of a catalogue's text. Raises CommandError with the line of the first thing that is wrong."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{name}: {error}.", exit_code=2) from None
    for key in found:
        if key != "backend" or not isinstance(found[key], list):
            raise _error_at(name, _line_of(text, key), "only [[backend]] tables are known")
    entries = tuple(_parsed_entry(text, name, index, table) for index, table in enumerate(found.get("backend", [])))
    names = [entry.name for entry in entries]
    for index, one in enumerate(names):
        if one in names[:index]:
            raise _error_at(name, _line_in(text, index, "name"), f"there is another backend called {one!r}")
    return entries


def read_catalogue(path: Path) -> tuple[CatalogueEntry, ...]:
    """The entries of a catalogue file. Raises CommandError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise CommandError(f"the catalogue {path.name} can't be read.", exit_code=2) from None
    return parse_catalogue(text, path.name)


def _parsed_entry(text: str, name: str, index: int, table: Any) -> CatalogueEntry:
    try:
        return CatalogueEntry.model_validate(table, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        what = first["msg"].removeprefix("Value error, ")
        raise _error_at(name, _line_in(text, index, key), f"{key}: {what}" if key else what) from None


def _error_at(name: str, line: int, what: str) -> CommandError:
    return CommandError(f"{name}, line {line}: {what}.", exit_code=2)


def _line_of(text: str, key: str) -> int:
    """The first line that begins with `key`, as a header or a key; 1 if none does."""
    pattern = re.compile(rf"\s*\[*\s*{re.escape(key)}\b")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _line_in(text: str, index: int, key: str) -> int:
    """The line of `key` in the index-th [[backend]]; that of its header where the key is missing."""
    table, header = -1, 1
    for number, line in enumerate(text.splitlines(), 1):
        if _TABLE_HEADER.match(line):
            table += 1
            header = number if table == index else header
        elif table == index and (found := _KEY.match(line)) and found[1] == key:
            return number
    return header
