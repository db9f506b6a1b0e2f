"""The child process that speaks to one Gradio endpoint for one attempt: started, listened to, killed, wiped after."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mastering.runtime import child_process
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.space import faults

READ_S = 35.0
"""Gradio's event stream has a heartbeat every 15 s: a server that misses two is gone."""
CONNECT_S = 5.0
_LONGEST_LINE_BYTES = 1024 * 1024
_KEPT = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Question(NamedTuple):
    """What to call."""

    url: str
    api_name: str
    arguments: Sequence[Any]
    token: str | None = None
    headers: Mapping[str, str] = {}
    as_given: bool = False
    """Arguments that name files name files of the Space."""


class Waiting(NamedTuple):
    """The connection holds, and the endpoint has yielded nothing yet."""


class Value(NamedTuple):
    """What the endpoint yielded; the last one is what it came to."""

    value: Any
    is_last: bool


class Call:
    """One child. It imports its library while the caller still uploads; `ask` once, and `close` in any case."""

    def __init__(self, scratch: Path) -> None:
        """`scratch`: a folder in RAM, for the child's own, which is gone with it."""
        self._scratch = scratch
        self._folder: str | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = tempfile.mkdtemp(dir=self._scratch)
        self._process = await child_process.start(
            child_process.python("router.tiers.space.child"),
            _environment(self._folder),
            stdin=child_process.PIPE,
            stdout=child_process.PIPE,
            cwd=self._folder,
            longest_line_bytes=_LONGEST_LINE_BYTES,
        )

    async def ask(self, question: Question, silence_s: float = READ_S) -> AsyncGenerator[Waiting | Value]:
        """What the endpoint says, the last value included. Raises TierFault."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        asked = {**question._asdict(), "headers": dict(question.headers), "read_s": READ_S, "connect_s": CONNECT_S}
        with suppress(ConnectionError):  # a child that is gone already says so by its empty answer
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            await process.stdin.drain()
        while True:
            said = await _line(process.stdout, silence_s)
            match said.get("kind"):
                case "waiting":
                    yield Waiting()
                case "value":
                    yield Value(said.get("value"), is_last=False)
                case "result":
                    yield Value(said.get("value"), is_last=True)
                    return
                case "failed":
                    raise _failed(said)
                case _:
                    raise TierFault(FaultClass.BUG, "the Space's client ended without a word")

    async def close(self) -> None:
        """Kill the child, if it lives, and wipe what it may have left."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.shield(self._process.wait())
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


async def _line(stdout: asyncio.StreamReader, silence_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(silence_s):
            line = await stdout.readline()
        said = json.loads(line or b"{}")
    except TimeoutError:
        raise TierFault(FaultClass.CRASH, "the Space fell silent") from None
    except ValueError:
        raise TierFault(FaultClass.BUG, "the Space said more than anybody can listen to") from None
    return said if isinstance(said, dict) else {}


def _failed(said: dict[str, Any]) -> TierFault:
    kinds, status = said.get("kinds", ()), said.get("status")
    return faults.of_client(kinds, title=said.get("title", ""), message=said.get("message", ""), status=status)


def _environment(folder: str) -> dict[str, str]:
    """Nothing of the router's own: no setting, no secret, no place to write but `folder`."""
    places = dict.fromkeys(("HOME", "TMPDIR", "GRADIO_TEMP_DIR", "HF_HOME"), folder)
    told = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    return child_process.environment(_KEPT, given=places | told)
