"""A Space's own addresses under /v1: the audio goes out and the master comes back by them, streamed, never whole."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from mastering.contract import OutputFormat
from mastering.protocol.frames import PROTOCOL_VERSION
from router.tiers import responses
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import BackendHealth, Source
from router.tiers.space import faults
from router.tiers.space.call import CONNECT_S, READ_S

_QUESTION_S = 1.0
_DELETE_S = 2.0
_RESTING = {"draining": BackendState.DRAINING, "warming": BackendState.WARMING}


class SpaceTransfer:
    """The addresses of one Space at `url`."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=limits, trust_env=False)

    async def health(self, timeout_s: float = _QUESTION_S) -> BackendHealth:
        """What the Space says of itself. Raises TierFault."""
        with responses.translated("the Space", reached=False):
            response = await responses.ask(self._http, "GET", "/v1/health", timeout=timeout_s)
            if response.status_code != httpx.codes.OK:
                raise _refusal(response, reached=False)
            return _health(responses.json_of(response))

    async def put(self, job_id: str, part: str, source: Source) -> None:
        """Send a stretch of audio. Raises TierFault."""
        headers = {"content-length": str(source.size_bytes), "content-type": "application/octet-stream"}
        with responses.translated("the Space", reached=True):
            path = f"/v1/jobs/{job_id}/{part}"
            response = await responses.ask(self._http, "PUT", path, content=source.open(), headers=headers)
            if response.status_code not in (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.NO_CONTENT):
                raise _refusal(response, reached=True)

    async def output(
        self, job_id: str, output_format: OutputFormat, size_bytes: int, sha256: str
    ) -> AsyncIterator[bytes]:
        """The bytes of one output, as many as announced and of that checksum. Raises TierFault."""
        left, digest = size_bytes, hashlib.sha256()
        with responses.translated("the Space", reached=True):
            path = f"/v1/jobs/{job_id}/outputs/{output_format}"
            async with self._http.stream("GET", path, headers=responses.IDENTITY) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise TierFault(FaultClass.CRASH, "the Space lost the master before it was fetched")
                if response.status_code != httpx.codes.OK:
                    raise _refusal(await responses.whole(response), reached=True)
                responses.refuse_packed(response.headers)
                async for chunk in response.aiter_raw():
                    left -= len(chunk)
                    if left < 0:
                        raise TierFault(FaultClass.BAD_OUTPUT, "the Space sent more than it announced")
                    digest.update(chunk)
                    yield chunk
        if left:
            raise TierFault(FaultClass.BAD_OUTPUT, "the master ended before its announced size")
        if digest.hexdigest() != sha256:
            raise TierFault(FaultClass.BAD_OUTPUT, "the master's checksum does not match its bytes")

    async def delete(self, job_id: str) -> bool:
        """Have the Space forget the job; True where it is seen to have no output of it any more. Raises TierFault."""
        with responses.translated("the Space", reached=False):
            response = await responses.ask(self._http, "DELETE", f"/v1/jobs/{job_id}", timeout=_DELETE_S)
            if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
                raise _refusal(response, reached=False)
            path = f"/v1/jobs/{job_id}/outputs/{OutputFormat.WAV24}"
            async with self._http.stream("GET", path, timeout=_DELETE_S) as after:
                return after.status_code == httpx.codes.NOT_FOUND

    async def close(self) -> None:
        await self._http.aclose()


def _health(body: Any) -> BackendHealth:
    """Raises TierFault for what is no answer of ours."""
    try:
        if body["protocol"] != PROTOCOL_VERSION:
            return BackendHealth(False, f"does not speak protocol {PROTOCOL_VERSION}")
        resting = _RESTING.get(body["state"])
        return BackendHealth(
            up=resting is None,
            detail="answers" if resting is None else f"says that it is {resting}",
            slots=int(body["slots"]["total"]),
            engine_version=responses.text(body["engine_version"], 32),
            device=responses.text(body["device"], 64),
            resting=resting,
            free=int(body["slots"]["free"]),
            max_bytes=int(body["max_bytes"]),
            max_duration_s=float(body["max_duration_s"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise TierFault(FaultClass.UNREACHABLE, "something else than the Space answers at its address") from None


def _refusal(response: httpx.Response, *, reached: bool) -> TierFault:
    after = response.headers.get("retry-after", "")
    is_said = response.headers.get("content-type", "").startswith("application/")
    problem = responses.json_of(response) if is_said else None
    return faults.of_status(response.status_code, reached=reached, retry_after=after, problem=problem)
