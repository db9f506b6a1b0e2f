"""The tier port for a managed worker: one render is one HTTP exchange (`mastering.protocol.frames`)."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator
from contextlib import ExitStack, suppress
from ssl import SSLContext
from typing import Any

import httpx

from mastering.contract import FaultCode
from mastering.protocol import frames
from mastering.protocol.signing import Keys, Signed, Signer, checked_url, client_tls
from router.core import clock
from router.core.buffers import ReadBuffer
from router.tiers import responses
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, TierFault, fault_of_engine
from router.tiers.port import BackendHealth, Finished, TierEvent, Work
from router.tiers.worker.connection import WorkerConnection
from router.tiers.worker.response import RenderResponse, translated

_CONNECT_TIMEOUT_S = 2.0
_PROBE_TIMEOUT_S = 1.0
"""Less than the fleet allows a probe."""
_SLOT_TIMEOUT_S = 5.0
_MAX_IDLE_S = 15.0
"""A connection that was idle for longer may have been dropped by a proxy or firewall, which sends no word of it."""
_RENDERS_PATH = "/v1/renders"
_WORKER_STATES = {"warming": BackendState.WARMING, "draining": BackendState.DRAINING}


class WorkerBackend:
    """One managed worker at `url`."""

    silence_s = 10.0

    def __init__(
        self, name: str, url: str, *, tier: str = "managed", signer: Signer | None = None, tls: SSLContext | None = None
    ) -> None:
        """`signer` signs every request and seals every body. Raises ValueError for plain HTTP beyond loopback."""
        self.name, self.tier = name, tier
        self._url, self._tls = checked_url(url).rstrip("/"), tls or client_tls()
        # httpx for probes; a song goes by connections of our own (`connection`), which are kept between renders.
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(_PROBE_TIMEOUT_S), trust_env=False, verify=self._tls)
        self._idle: list[tuple[WorkerConnection, float]] = []
        """Connections without a request, and since when on the clock of `clock.now`."""
        self._signer = signer

    async def probe(self) -> BackendHealth:
        try:
            signed = self._sign("GET", "/v1/health")
            response = await responses.request(self._http, "GET", f"{self._url}/v1/health", headers=signed.headers)
            response.raise_for_status()
            return _worker_health(responses.json_body(response))
        except (httpx.HTTPError, ValueError, KeyError, TypeError, OverflowError) as error:
            return BackendHealth(False, f"no healthy answer ({type(error).__name__})")

    async def wake(self) -> None:
        return  # a worker never sleeps

    async def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        with translated(reached=False):
            connection, slot = await self._reserve()
        try:
            with translated(reached=True):
                signed = self._sign(
                    "POST", _RENDERS_PATH, {frames.SLOT_HEADER: slot, "content-type": frames.MEDIA_TYPE}
                )
                await self._send_song(connection, work, signed)
                response = await connection.read_head()
                if response.status != httpx.codes.OK:
                    raise _worker_refusal(await connection.read_small_body(response), signed.keys.response)
                responses.refuse_encoded(response.headers)
                answer = RenderResponse(connection, response, frames.Seal(signed.keys.response))
                while not isinstance(event := await answer.next(), Finished):
                    yield event
                yield event
        finally:
            self._give_back(connection)

    async def _reserve(self) -> tuple[WorkerConnection, str]:
        """Reserve a render slot: the connection for the render, and the slot's token. Raises TierFault.

        All of a song is sent before the response is read, so that a busy worker would cost an upload.
        """
        while self._idle:
            connection, since_s = self._idle.pop()
            if clock.now() - since_s > _MAX_IDLE_S or not connection.is_idle:
                connection.close()
                continue
            with suppress(httpx.NetworkError):  # closed by the worker this very moment
                return await self._with_slot(connection)
        return await self._with_slot(await self._open())

    async def _open(self) -> WorkerConnection:
        connection = WorkerConnection(self._url, self._tls)
        await connection.open(_CONNECT_TIMEOUT_S)
        return connection

    async def _with_slot(self, connection: WorkerConnection) -> tuple[WorkerConnection, str]:
        """Ask for a slot by `connection`; a new connection for the render where the worker closes that one."""
        slot = await self._request_slot(connection)
        if connection.is_idle:
            return connection, slot
        connection.close()
        return await self._open(), slot

    async def _request_slot(self, connection: WorkerConnection) -> str:
        """Ask for a slot; its token. Raises TierFault where there is none, and gives the connection back."""
        signed = self._sign("POST", "/v1/slots")
        with ExitStack() as on_failure:
            on_failure.callback(self._give_back, connection)
            await connection.send_head(
                "POST",
                "/v1/slots",
                {**signed.headers, **responses.NO_COMPRESSION, "content-length": "0"},
                _SLOT_TIMEOUT_S,
            )
            response = await connection.read_small_body(await connection.read_head())
            if response.status_code != httpx.codes.CREATED:
                raise _worker_refusal(response, signed.keys.response)
            try:
                slot = str(responses.json_body(response)["slot"])
            except (KeyError, TypeError):
                raise TierFault(FaultClass.BUG, "the worker's answer is not in the protocol") from None
            on_failure.pop_all()
            return slot

    async def _send_song(self, connection: WorkerConnection, work: Work, signed: Signed) -> None:
        """Send the song; stop where the worker reads no more, since its response says why."""
        headers = {**signed.headers, **responses.NO_COMPRESSION, "transfer-encoding": "chunked"}
        await connection.send_head("POST", _RENDERS_PATH, headers, self.silence_s)
        sources = {"audio": work.audio} | {f"reference/{number}": one for number, one in enumerate(work.references)}
        with suppress(httpx.WriteError), ExitStack() as buffers:
            parts = [(name, one.size_bytes, buffers.enter_context(one.open_reader())) for name, one in sources.items()]
            await connection.run_in_thread(_send_body, connection, frames.Seal(signed.keys.request), work, parts)

    def _give_back(self, connection: WorkerConnection) -> None:
        if connection.is_idle:
            self._idle.append((connection, clock.now()))
        else:
            connection.close()

    async def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()
        await self._http.aclose()

    def _sign(self, method: str, path: str, headers: dict[str, str] | None = None) -> Signed:
        if self._signer is None:
            return Signed(headers or {}, Keys())
        return self._signer.sign(method, self._url + path, headers or {})


def _worker_health(body: Any) -> BackendHealth:
    """Parse a worker's health. Raises KeyError, TypeError, ValueError or OverflowError for anything else."""
    if body["protocol"] != frames.PROTOCOL_VERSION:
        spoken = frames.other_version(responses.short_text(body["protocol"], 8))
        return BackendHealth(False, spoken, reported_state=BackendState.INCOMPATIBLE)
    reported_state = _WORKER_STATES.get(body["state"])
    return BackendHealth(
        up=reported_state is None,
        detail="answers" if reported_state is None else f"says that it is {reported_state}",
        slots=int(body["slots"]["total"]),
        engine_version=_optional_text(body.get("engine_version"), 32),
        device=_optional_text(body.get("device"), 64),
        sandbox_gaps=responses.sandbox_gaps_in(body.get("sandbox_gaps")),
        reported_state=reported_state,
        kinds=responses.kinds_in(body["kinds"]),
        paces=responses.paces_in(body.get("paces")),
    )


def _optional_text(value: Any, longest: int) -> str | None:
    return None if value is None else responses.short_text(value, longest)


def _send_body(
    connection: WorkerConnection, seal: frames.Seal, work: Work, parts: list[tuple[str, int, ReadBuffer]]
) -> None:
    """In a thread: send the frames of a request, and the end of its body."""
    options = work.options.model_dump(mode="json")
    asked = frames.JobEvent(kind=work.kind, options=options, deadline_s=work.deadline_s)
    connection.send_chunk(seal.pass_on(frames.encode_event(asked)))
    for name, size_bytes, buffer in parts:
        connection.send_chunk(seal.pass_on(frames.encode_event(frames.PartEvent(name=name, size=size_bytes))))
        while piece := buffer.next_piece():
            connection.send_chunk(seal.pass_on(frames.data_header(len(piece))), seal.pass_on(piece))
    connection.send_chunk(frames.encode_event(seal.close(frames.EndEvent())))
    connection.send_chunk()


def _worker_refusal(response: httpx.Response, key: bytes | None) -> TierFault:
    """The fault for a response other than success. One that ends the job must be sealed by `key`."""
    status = response.status_code
    if status in (409, 429, 503):
        after = response.headers.get("retry-after", "")
        return TierFault(FaultClass.CAPACITY, "the worker is busy", retry_after_s=responses.retry_after_s(after, 1.0))
    if status in (401, 403):
        return TierFault(FaultClass.CONFIGURATION, "the worker refused the router's signature")
    if status in (400, 413, 422):
        return _from_problem(response) if _is_sealed(response, key) else _unsealed(status)
    if status == 404:
        return TierFault(FaultClass.CONFIGURATION, "the worker does not know the protocol's addresses")
    return TierFault(FaultClass.BUG, f"the worker answered with status {status}")


def _is_sealed(response: httpx.Response, key: bytes | None) -> bool:
    if key is None:
        return True
    expected = frames.problem_seal(key, response.status_code, response.content)
    return hmac.compare_digest(response.headers.get(frames.SEAL_HEADER, "").encode(), expected.encode())


def _unsealed(status: int) -> TierFault:
    """The fault for a refusal without a seal: a proxy may have sent it, so it must not end the job."""
    return TierFault(FaultClass.BUG, f"the worker answered with status {status} and no seal of its own")


def _from_problem(response: httpx.Response) -> TierFault:
    try:
        body = responses.json_body(response)
        return fault_of_engine(FaultCode(body["code"]), str(body.get("detail", body["title"])))
    except (ValueError, KeyError, TypeError):
        return TierFault(FaultClass.BUG, f"the worker answered with status {response.status_code} and no reason")
