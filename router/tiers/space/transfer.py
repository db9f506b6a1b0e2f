"""A client of our Space's own HTTP routes under /v1: health, audio and outputs, streamed and never whole in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from mastering.protocol.frames import PROTOCOL_VERSION, other_version
from router.tiers import responses
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import AudioSource, BackendHealth
from router.tiers.space import faults
from router.tiers.space.call import CONNECT_S, READ_S

_HEALTH_TIMEOUT_S = 1.0
"""Less than the fleet allows a probe."""
_DELETE_TIMEOUT_S = 2.0
_SPACE_STATES = {"draining": BackendState.DRAINING, "warming": BackendState.WARMING}


class SpaceTransfer:
    """The routes of one Space at `url`; `headers` go with every request."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=limits, trust_env=False)

    async def health(self, timeout_s: float = _HEALTH_TIMEOUT_S) -> BackendHealth:
        """GET its health. Raises TierFault."""
        with responses.translate_errors("the Space", reached=False):
            response = await responses.request(self._http, "GET", "/v1/health", timeout=timeout_s)
            if response.status_code != httpx.codes.OK:
                raise _space_refusal(response, reached=False)
            return _space_health(responses.json_body(response))

    async def put(self, job_id: str, part: str, source: AudioSource) -> None:
        """PUT one audio file as `part` of the job. Raises TierFault."""
        headers = {"content-length": str(source.size_bytes), "content-type": "application/octet-stream"}
        with responses.translate_errors("the Space", reached=True):
            path = f"/v1/jobs/{job_id}/{part}"
            response = await responses.request(self._http, "PUT", path, content=source.open(), headers=headers)
            if response.status_code not in (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.NO_CONTENT):
                raise _space_refusal(response, reached=True)

    async def output(self, job_id: str, name: str, size_bytes: int, sha256: str) -> AsyncIterator[bytes]:
        """GET one output: its bytes, of the announced size and checksum. Raises TierFault."""
        left, digest = size_bytes, hashlib.sha256()
        with responses.translate_errors("the Space", reached=True):
            path = f"/v1/jobs/{job_id}/outputs/{name}"
            async with self._http.stream("GET", path, headers=responses.NO_COMPRESSION) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise TierFault(FaultClass.CRASH, "the Space lost the master before it was fetched")
                if response.status_code != httpx.codes.OK:
                    raise _space_refusal(await responses.read_whole(response), reached=True)
                responses.refuse_encoded(response.headers)
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
        """DELETE the job; True where the Space then holds nothing of it any more. Raises TierFault."""
        with responses.translate_errors("the Space", reached=False):
            response = await responses.request(self._http, "DELETE", f"/v1/jobs/{job_id}", timeout=_DELETE_TIMEOUT_S)
            if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
                raise _space_refusal(response, reached=False)
            async with self._http.stream("GET", f"/v1/jobs/{job_id}", timeout=_DELETE_TIMEOUT_S) as after:
                return after.status_code == httpx.codes.NOT_FOUND

    async def close(self) -> None:
        await self._http.aclose()


def _space_health(body: Any) -> BackendHealth:
    """Parse a Space's health. Raises TierFault for anything else."""
    try:
        if body["protocol"] != PROTOCOL_VERSION:
            spoken = other_version(responses.short_text(body["protocol"], 8))
            return BackendHealth(False, spoken, reported_state=BackendState.INCOMPATIBLE)
        reported_state = _SPACE_STATES.get(body["state"])
        return BackendHealth(
            up=reported_state is None,
            detail="answers" if reported_state is None else f"says that it is {reported_state}",
            slots=int(body["slots"]["total"]),
            engine_version=responses.short_text(body["engine_version"], 32),
            device=responses.short_text(body["device"], 64),
            sandbox_gaps=responses.sandbox_gaps_in(body.get("sandbox_gaps")),
            reported_state=reported_state,
            free=int(body["slots"]["free"]),
            max_bytes=int(body["max_bytes"]),
            max_duration_s=float(body["max_duration_s"]),
            kinds=responses.kinds_in(body["kinds"]),
            paces=responses.paces_in(body.get("paces")),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise TierFault(FaultClass.UNREACHABLE, "something else than the Space answers at its address") from None


def _space_refusal(response: httpx.Response, *, reached: bool) -> TierFault:
    """The fault for a response other than success. `reached`: the song was on its way by then."""
    after = response.headers.get("retry-after", "")
    is_ours = response.headers.get("content-type", "").startswith("application/")
    problem = responses.json_body(response) if is_ours else None
    return faults.fault_of_status(response.status_code, reached=reached, retry_after=after, problem=problem)
