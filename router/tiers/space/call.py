"""Calls one Gradio endpoint for one attempt, in a child process that is killed and whose folder is wiped afterwards."""

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
"""Seconds without a byte: Gradio's event stream has a heartbeat every 15 s, and a server that misses two is gone."""
CONNECT_S = 5.0
"""A Space that is awake answers within one; the rest is for the way there."""
_LONGEST_LINE_BYTES = 1024 * 1024
"""Of a message from the child: a report takes a few kilobytes of JSON."""
_KEPT_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Of the router's environment, beside what every program needs: where TLS finds its authorities."""


class CallRequest(NamedTuple):
    """The endpoint to call, its arguments, and what every request carries."""

    url: str
    api_name: str
    arguments: Sequence[Any]
    token: str | None = None
    headers: Mapping[str, str] = {}
    as_given: bool = False
    """Paths in the arguments are the Space's own, not this machine's: nothing is uploaded."""


class CallWaiting(NamedTuple):
    """The connection is alive, and the endpoint has yielded nothing yet."""


class EndpointValue(NamedTuple):
    """A value that the endpoint yielded; the last one is its result."""

    value: Any
    is_last: bool


class GradioCall:
    """One child process. `start` it before the upload, since its library takes a while to import; `run` it once.

    The caller closes it in any case.
    """

    def __init__(self, scratch: Path) -> None:
        """`scratch`: a folder in RAM. In it the child has one of its own, which `close` removes."""
        self._scratch = scratch
        self._folder: str | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = tempfile.mkdtemp(dir=self._scratch)
        self._process = await child_process.start(
            child_process.python("router.tiers.space.child"),
            _child_environment(self._folder),
            stdin=child_process.PIPE,
            stdout=child_process.PIPE,
            cwd=self._folder,
            longest_line_bytes=_LONGEST_LINE_BYTES,
        )

    async def run(self, request: CallRequest, silence_s: float = READ_S) -> AsyncGenerator[CallWaiting | EndpointValue]:
        """Call the endpoint: what it yields, the result last. Raises TierFault."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        fields = {**request._asdict(), "headers": dict(request.headers), "read_s": READ_S, "connect_s": CONNECT_S}
        with suppress(ConnectionError):  # of a child that is gone already the output is empty, see below
            process.stdin.write(json.dumps(fields).encode() + b"\n")
            await process.stdin.drain()
        while True:
            message = await _read_message(process.stdout, silence_s)
            match message.get("kind"):
                case "waiting":
                    yield CallWaiting()
                case "value":
                    yield EndpointValue(message.get("value"), is_last=False)
                case "result":
                    yield EndpointValue(message.get("value"), is_last=True)
                    return
                case "failed":
                    raise _fault_of_failure(message)
                case _:
                    raise TierFault(FaultClass.BUG, "the Space's client ended without a word")

    async def close(self) -> None:
        """Kill the child, if it lives, and remove its folder."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.shield(self._process.wait())
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


async def _read_message(stdout: asyncio.StreamReader, silence_s: float) -> dict[str, Any]:
    """The child's next message; an empty one where it has ended. Raises TierFault."""
    try:
        async with asyncio.timeout(silence_s):
            line = await stdout.readline()
        message = json.loads(line or b"{}")
    except TimeoutError:
        raise TierFault(FaultClass.CRASH, "the Space fell silent") from None
    except ValueError:
        raise TierFault(FaultClass.BUG, "the Space said more than anybody can listen to") from None
    return message if isinstance(message, dict) else {}


def _fault_of_failure(message: dict[str, Any]) -> TierFault:
    kinds, status = message.get("kinds", ()), message.get("status")
    return faults.fault_of_client(
        kinds, title=message.get("title", ""), message=message.get("message", ""), status=status
    )


def _child_environment(folder: str) -> dict[str, str]:
    """The child's environment: no setting or secret of the router, and no folder to write in but `folder`."""
    places = dict.fromkeys(("HOME", "TMPDIR", "GRADIO_TEMP_DIR", "HF_HOME"), folder)
    options = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    }
    return child_process.environment(_KEPT_VARIABLES, given=places | options)
