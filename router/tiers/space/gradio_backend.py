"""Any Gradio app that takes a file and gives one, behind the tier port.

The file goes up and comes down as a stream by Gradio's own addresses; the call between them is made by a child process
(`space_call`). Such an app promises less than a Space of ours: it knows no settings, makes one format, tells neither
progress nor what it did, and keeps what it was sent in a cache of its own, named after its content, which nobody can
ask it to empty. The router verifies its master like any other.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from mastering.contract import OutputFormat
from router.tiers import responses
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, BackendHealth, Event, Finished, OutputBegins, Work
from router.tiers.space import faults
from router.tiers.space.address import SpaceAddress
from router.tiers.space.api_prefix import ElsewhereError, prefix_in
from router.tiers.space.call import CONNECT_S, READ_S, Call, Question, Value

_PROBE_S = 1.0
_MAX_SIZE_DIGITS = 15
_NOT_IN_A_SUFFIX = re.compile(r"[^a-z0-9]")


class GradioBackend:
    """A Gradio app's endpoint with one file as its only argument."""

    silence_s = 30 * 60.0
    """It says nothing while it works: only its deadline ends it, or that its connection breaks."""

    def __init__(
        self, name: str, tier: str, where: SpaceAddress, ram: Path, *, endpoint: str, returns: OutputFormat
    ) -> None:
        self.name, self.tier, self._where = name, tier, where
        self._endpoint, self._returns = endpoint, returns
        self._scratch = ram / name / "calls"
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        bearer = {"authorization": f"Bearer {where.token}"} if where.token else {}
        self._http = httpx.AsyncClient(headers=bearer, timeout=timeout, trust_env=False)
        self._last: BackendHealth | None = None

    async def probe(self) -> BackendHealth:
        try:
            resting = await self._where.resting(self._last)
            if resting is not None:
                return resting
            await self._prefix()
        except TierFault as fault:
            return BackendHealth(False, fault.detail)
        self._last = BackendHealth(True, "answers")
        return self._where.with_quota(self._last)

    async def wake(self) -> None:
        await self._where.wake(self._prefix)

    async def run(self, work: Work) -> AsyncGenerator[Event]:
        self._where.use()
        if work.settings.outputs != (self._returns,) or work.references:
            raise TierFault(FaultClass.TOO_BIG, f"it makes {self._returns.label} alone, and knows no reference")
        await self._where.refuse_unless_awake()
        call = Call(self._scratch)
        try:
            prefix = await self._prefix()
            await call.start()
            path = await self._upload(prefix, work)
            yield Accepted("a Gradio app")
            made = await self._made(call, path)
            async for event in self._fetch(f"{prefix}/file={quote(made)}"):
                yield event
            yield Finished(None)
        except TierFault as fault:
            raise await self._where.explained(fault) from None
        finally:
            self._where.use()
            await call.close()

    async def close(self) -> None:
        await self._where.close()
        await self._http.aclose()

    async def _prefix(self) -> str:
        """Where Gradio's own addresses begin. Raises TierFault for what is no Gradio app with our endpoint."""
        url = self._where.url()
        with responses.translated("the Space", reached=False):
            response = await responses.ask(self._http, "GET", f"{url}/config", timeout=_PROBE_S)
        _refuse_unless_ok(response, reached=False)
        try:
            config: dict[str, Any] = responses.json_of(response)
            names = {f"/{dependency['api_name']}" for dependency in config["dependencies"]}
            prefix = prefix_in(config)
        except ElsewhereError:
            raise TierFault(FaultClass.CONFIGURATION, faults.ELSEWHERE) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TierFault(FaultClass.UNREACHABLE, "something else than a Gradio app answers") from None
        if self._endpoint not in names:
            raise TierFault(FaultClass.CONFIGURATION, "the Gradio app has no endpoint of that name")
        return f"{url}/{prefix}".rstrip("/")

    async def _upload(self, prefix: str, work: Work) -> str:
        """The song's place at the app. Raises TierFault."""
        suffix = _NOT_IN_A_SUFFIX.sub("", work.facts.container.lower()) or "bin"
        form = _Form(f"song.{suffix}", work)
        with responses.translated("the Space", reached=True):
            response = await responses.ask(
                self._http, "POST", f"{prefix}/upload", content=form.body(), headers=form.headers
            )
        _refuse_unless_ok(response, reached=True)
        try:
            return str(responses.json_of(response)[0])
        except (ValueError, KeyError, TypeError, IndexError):
            raise TierFault(FaultClass.BUG, "the Gradio app does not say where it put the song") from None

    async def _made(self, call: Call, path: str) -> str:
        """The master's place at the app. Raises TierFault."""
        file = {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
        question = Question(self._where.url(), self._endpoint, (file,), self._where.token, as_given=True)
        async with aclosing(call.ask(question)) as answers:
            async for answer in answers:
                if isinstance(answer, Value) and answer.is_last:
                    made = _path_in(answer.value)
                    if made is not None:
                        return made
        raise TierFault(FaultClass.BAD_OUTPUT, "the Gradio app gave no file back")

    async def _fetch(self, url: str) -> AsyncGenerator[Event]:
        with responses.translated("the Space", reached=True):
            async with self._http.stream("GET", url, headers=responses.IDENTITY) as response:
                if response.status_code != httpx.codes.OK:
                    _refuse_unless_ok(await responses.whole(response), reached=True)
                responses.refuse_packed(response.headers)
                size_bytes = response.headers.get("content-length", "")
                if not (size_bytes.isascii() and size_bytes.isdecimal()) or len(size_bytes) > _MAX_SIZE_DIGITS:
                    raise TierFault(FaultClass.BAD_OUTPUT, "the Gradio app does not say how large the master is")
                yield OutputBegins(self._returns, int(size_bytes))
                async for chunk in response.aiter_raw():
                    yield chunk


class _Form:
    """One file as a multipart form that is never whole in memory."""

    def __init__(self, name: str, work: Work) -> None:
        boundary = secrets.token_hex(16)
        disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"'
        self._head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._work = work
        size_bytes = len(self._head) + work.audio.size_bytes + len(self._tail)
        self.headers = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(size_bytes),
        }

    async def body(self) -> AsyncIterator[bytes]:
        yield self._head
        async for chunk in self._work.audio.open():
            yield chunk
        yield self._tail


def _refuse_unless_ok(response: httpx.Response, *, reached: bool) -> None:
    if response.status_code != httpx.codes.OK:
        after = response.headers.get("retry-after", "")
        raise faults.of_status(response.status_code, reached=reached, retry_after=after)


def _path_in(value: Any) -> str | None:
    """The first file's path in what an endpoint came to."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _path_in(value["path"]) if "path" in value else None
    if isinstance(value, (list, tuple)):
        return next((found for found in map(_path_in, value) if found), None)
    return None
