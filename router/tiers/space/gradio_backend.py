"""The tier port for any Gradio app that takes an audio file and returns one.

The file is streamed both ways by Gradio's own routes; the call between is made by a child process (`call`). Such an
app promises less than a Space of ours: it takes no settings, makes one format, reports neither progress nor what it
did, and keeps what it was sent in a cache named after its content, which nobody can ask it to empty. The router
verifies its master like any other.
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
from mastering.contract.kinds import MASTER
from router.tiers import responses
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, BackendHealth, Finished, OutputStarted, TierEvent, Work
from router.tiers.space import faults
from router.tiers.space.address import SpaceAddress
from router.tiers.space.api_prefix import ForeignHostError, api_prefix_of
from router.tiers.space.call import CONNECT_S, READ_S, CallRequest, EndpointValue, GradioCall

_CONFIG_TIMEOUT_S = 1.0
"""Less than the fleet allows a probe."""
_MAX_SIZE_DIGITS = 15
"""Of a Content-Length: far beyond any file, and still an exact number in any client."""
_NOT_IN_A_SUFFIX = re.compile(r"[^a-z0-9]")


class GradioBackend:
    """A Gradio app's endpoint with one file as its only argument."""

    silence_s = 30 * 60.0
    """It sends nothing while it works: only the attempt's deadline or a broken connection ends it."""

    def __init__(
        self, name: str, tier: str, address: SpaceAddress, ram: Path, *, endpoint: str, returns: OutputFormat
    ) -> None:
        self.name, self.tier, self._address = name, tier, address
        self._endpoint, self._returns = endpoint, returns
        self._scratch = ram / name / "calls"
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        bearer = {"authorization": f"Bearer {address.token}"} if address.token else {}
        self._http = httpx.AsyncClient(headers=bearer, timeout=timeout, trust_env=False)
        self._last: BackendHealth | None = None

    async def probe(self) -> BackendHealth:
        try:
            by_hub = await self._address.health_by_hub(self._last)
            if by_hub is not None:
                return by_hub
            await self._prefix()
        except TierFault as fault:
            return BackendHealth(False, fault.detail)
        paces = frozenset(MASTER.paces) - MASTER.pace_modules.keys()  # an app of somebody's knows nothing of the others
        self._last = BackendHealth(True, "answers", kinds={MASTER.name: {}}, paces={MASTER.name: paces})
        return self._address.with_quota(self._last)

    async def wake(self) -> None:
        await self._address.wake(self._prefix)

    async def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        self._address.mark_used()
        if work.options.outputs != (self._returns,) or work.references:
            raise TierFault(FaultClass.TOO_BIG, f"it makes {self._returns.label} alone, and knows no reference")
        await self._address.refuse_unless_awake()
        call = GradioCall(self._scratch)
        try:
            prefix = await self._prefix()
            await call.start()
            path = await self._upload(prefix, work)
            yield Accepted("a Gradio app")
            master_path = await self._call(call, path)
            async for event in self._fetch(f"{prefix}/file={quote(master_path)}"):
                yield event
            yield Finished(None)
        except TierFault as fault:
            raise await self._address.explain(fault) from None
        finally:
            self._address.mark_used()
            await call.close()

    async def close(self) -> None:
        await self._address.close()
        await self._http.aclose()

    async def _prefix(self) -> str:
        """The URL below which Gradio has its routes. Raises TierFault for anything but an app with the endpoint."""
        url = self._address.url()
        with responses.translate_errors("the Space", reached=False):
            response = await responses.request(self._http, "GET", f"{url}/config", timeout=_CONFIG_TIMEOUT_S)
        _refuse_unless_ok(response, reached=False)
        try:
            config: dict[str, Any] = responses.json_body(response)
            names = {f"/{dependency['api_name']}" for dependency in config["dependencies"]}
            prefix = api_prefix_of(config)
        except ForeignHostError:
            raise TierFault(FaultClass.CONFIGURATION, faults.FOREIGN_HOST) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TierFault(FaultClass.UNREACHABLE, "something else than a Gradio app answers") from None
        if self._endpoint not in names:
            raise TierFault(FaultClass.CONFIGURATION, "the Gradio app has no endpoint of that name")
        return f"{url}/{prefix}".rstrip("/")

    async def _upload(self, prefix: str, work: Work) -> str:
        """Upload the song; its path at the app. Raises TierFault."""
        suffix = _NOT_IN_A_SUFFIX.sub("", work.facts.container.lower()) or "bin"
        form = _MultipartForm(f"song.{suffix}", work)
        with responses.translate_errors("the Space", reached=True):
            response = await responses.request(
                self._http, "POST", f"{prefix}/upload", content=form.body(), headers=form.headers
            )
        _refuse_unless_ok(response, reached=True)
        try:
            return str(responses.json_body(response)[0])
        except (ValueError, KeyError, TypeError, IndexError):
            raise TierFault(FaultClass.BUG, "the Gradio app does not say where it put the song") from None

    async def _call(self, call: GradioCall, path: str) -> str:
        """Call the endpoint; the master's path at the app. Raises TierFault."""
        file = {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
        request = CallRequest(self._address.url(), self._endpoint, (file,), self._address.token, as_given=True)
        async with aclosing(call.run(request)) as values:
            async for value in values:
                if isinstance(value, EndpointValue) and value.is_last:
                    master_path = _file_path_in(value.value)
                    if master_path is not None:
                        return master_path
        raise TierFault(FaultClass.BAD_OUTPUT, "the Gradio app gave no file back")

    async def _fetch(self, url: str) -> AsyncGenerator[TierEvent]:
        with responses.translate_errors("the Space", reached=True):
            async with self._http.stream("GET", url, headers=responses.NO_COMPRESSION) as response:
                if response.status_code != httpx.codes.OK:
                    _refuse_unless_ok(await responses.read_whole(response), reached=True)
                responses.refuse_encoded(response.headers)
                size_bytes = response.headers.get("content-length", "")
                if not (size_bytes.isascii() and size_bytes.isdecimal()) or len(size_bytes) > _MAX_SIZE_DIGITS:
                    raise TierFault(FaultClass.BAD_OUTPUT, "the Gradio app does not say how large the master is")
                yield OutputStarted(self._returns, int(size_bytes))
                async for chunk in response.aiter_raw():
                    yield chunk


class _MultipartForm:
    """One file as a streamed multipart/form-data body (RFC 7578), never whole in memory."""

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
        raise faults.fault_of_status(response.status_code, reached=reached, retry_after=after)


def _file_path_in(value: Any) -> str | None:
    """The first file's path in an endpoint's result; None where there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _file_path_in(value["path"]) if "path" in value else None
    if isinstance(value, (list, tuple)):
        return next((found for found in map(_file_path_in, value) if found), None)
    return None
