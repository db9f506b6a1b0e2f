"""The managed worker behind the tier port: one render is one HTTP exchange (`mastering.protocol.frames`)."""

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
from router.tiers.policy.faults import FaultClass, TierFault, of_engine
from router.tiers.port import BackendHealth, Event, Finished, Work
from router.tiers.worker.connection import WorkerConnection
from router.tiers.worker.response import RenderResponse, translated

_CONNECT_S = 2.0
_PROBE_S = 1.0
_SLOT_S = 5.0
_KEPT_S = 15.0
"""A line that has been idle for longer may be forgotten by somebody in between, who says nothing of it."""
_RENDERS = "/v1/renders"
_RESTING = {"warming": BackendState.WARMING, "draining": BackendState.DRAINING}


class WorkerBackend:
    """One managed worker at `url`."""

    silence_s = 10.0

    def __init__(
        self, name: str, url: str, *, tier: str = "managed", signer: Signer | None = None, tls: SSLContext | None = None
    ) -> None:
        """`signer` signs every request and seals every body. Raises ValueError for plain HTTP off loopback."""
        self.name, self.tier = name, tier
        self._url, self._tls = checked_url(url).rstrip("/"), tls or client_tls()
        # What is small is asked of httpx; what a song needs goes by lines, which are kept from one to the next.
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(_PROBE_S), trust_env=False, verify=self._tls)
        self._lines: list[tuple[WorkerConnection, float]] = []
        """And since when."""
        self._signer = signer

    async def probe(self) -> BackendHealth:
        try:
            signed = self._sign("GET", "/v1/health")
            response = await responses.ask(self._http, "GET", f"{self._url}/v1/health", headers=signed.headers)
            response.raise_for_status()
            return _health(responses.json_of(response))
        except (httpx.HTTPError, ValueError, KeyError, TypeError, OverflowError) as error:
            return BackendHealth(False, f"no healthy answer ({type(error).__name__})")

    async def wake(self) -> None:
        return  # a worker never sleeps

    async def run(self, work: Work) -> AsyncGenerator[Event]:
        with translated(reached=False):
            line, slot = await self._reserve()
        try:
            with translated(reached=True):
                signed = self._sign("POST", _RENDERS, {frames.SLOT_HEADER: slot, "content-type": frames.MEDIA_TYPE})
                await self._send(line, work, signed)
                response = await line.answer()
                if response.status != httpx.codes.OK:
                    raise _refusal(await line.whole(response), signed.keys.response)
                responses.refuse_packed(response.headers)
                answer = RenderResponse(line, response, frames.Seal(signed.keys.response))
                while not isinstance(event := await answer.next(), Finished):
                    yield event
                yield event
        finally:
            self._put_back(line)

    async def _reserve(self) -> tuple[WorkerConnection, str]:
        """A slot first: a busy worker costs no upload, since all of a song is sent before the answer is read."""
        while self._lines:
            line, since_s = self._lines.pop()
            if clock.now() - since_s > _KEPT_S or not line.is_idle:
                line.close()
                continue
            with suppress(httpx.NetworkError):  # given up by the worker this very moment
                return await self._with_slot(line)
        return await self._with_slot(await self._opened())

    async def _opened(self) -> WorkerConnection:
        line = WorkerConnection(self._url, self._tls)
        await line.open(_CONNECT_S)
        return line

    async def _with_slot(self, line: WorkerConnection) -> tuple[WorkerConnection, str]:
        """A slot asked for by `line`, and the line for its render: another one where that answer was its last."""
        slot = await self._slot(line)
        if line.is_idle:
            return line, slot
        line.close()
        return await self._opened(), slot

    async def _slot(self, line: WorkerConnection) -> str:
        """The line is put back, or closed, where there is none."""
        signed = self._sign("POST", "/v1/slots")
        with ExitStack() as otherwise:
            otherwise.callback(self._put_back, line)
            await line.begin(
                "POST", "/v1/slots", {**signed.headers, **responses.IDENTITY, "content-length": "0"}, _SLOT_S
            )
            response = await line.whole(await line.answer())
            if response.status_code != httpx.codes.CREATED:
                raise _refusal(response, signed.keys.response)
            try:
                slot = str(responses.json_of(response)["slot"])
            except (KeyError, TypeError):
                raise TierFault(FaultClass.BUG, "the worker's answer is not in the protocol") from None
            otherwise.pop_all()
            return slot

    async def _send(self, line: WorkerConnection, work: Work, signed: Signed) -> None:
        """The song, as far as the worker listens."""
        headers = {**signed.headers, **responses.IDENTITY, "transfer-encoding": "chunked"}
        await line.begin("POST", _RENDERS, headers, self.silence_s)
        named = {"audio": work.audio} | {f"reference/{number}": one for number, one in enumerate(work.references)}
        with suppress(httpx.WriteError), ExitStack() as lent:
            parts = [(name, one.size_bytes, lent.enter_context(one.open_reader())) for name, one in named.items()]
            await line.step(_put, line, frames.Seal(signed.keys.request), work, parts)

    def _put_back(self, line: WorkerConnection) -> None:
        if line.is_idle:
            self._lines.append((line, clock.now()))
        else:
            line.close()

    async def close(self) -> None:
        while self._lines:
            self._lines.pop()[0].close()
        await self._http.aclose()

    def _sign(self, method: str, path: str, headers: dict[str, str] | None = None) -> Signed:
        if self._signer is None:
            return Signed(headers or {}, Keys())
        return self._signer.sign(method, self._url + path, headers or {})


def _health(body: Any) -> BackendHealth:
    """Raises KeyError, TypeError, ValueError or OverflowError if the worker's answer is not one of ours."""
    if body["protocol"] != frames.PROTOCOL_VERSION:
        return BackendHealth(
            False, f"speaks protocol {responses.text(body['protocol'], 8)}, not {frames.PROTOCOL_VERSION}"
        )
    resting = _RESTING.get(body["state"])
    return BackendHealth(
        up=resting is None,
        detail="answers" if resting is None else f"says that it is {resting}",
        slots=int(body["slots"]["total"]),
        engine_version=_word(body.get("engine_version"), 32),
        device=_word(body.get("device"), 64),
        resting=resting,
    )


def _word(said: Any, longest: int) -> str | None:
    return None if said is None else responses.text(said, longest)


def _put(line: WorkerConnection, seal: frames.Seal, work: Work, parts: list[tuple[str, int, ReadBuffer]]) -> None:
    """In a thread: the frames of a request, and the end of its body."""
    asked = frames.SettingsEvent(settings=work.settings, deadline_s=work.deadline_s)
    line.put(seal.pass_on(frames.encode_event(asked)))
    for name, size_bytes, stretch in parts:
        line.put(seal.pass_on(frames.encode_event(frames.PartEvent(name=name, size=size_bytes))))
        while piece := stretch.next_piece():
            line.put(seal.pass_on(frames.data_header(len(piece))), seal.pass_on(piece))
    line.put(frames.encode_event(seal.close(frames.EndEvent())))
    line.put()


def _refusal(response: httpx.Response, key: bytes | None) -> TierFault:
    """What an answer other than the hoped-for one means. One that ends the job must be sealed by `key`."""
    status = response.status_code
    if status in (409, 429, 503):
        after = response.headers.get("retry-after", "")
        return TierFault(FaultClass.CAPACITY, "the worker is busy", retry_after_s=responses.seconds(after, 1.0))
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
    """Anybody in between may have said it: it must not stop the job for good."""
    return TierFault(FaultClass.BUG, f"the worker answered with status {status} and no seal of its own")


def _from_problem(response: httpx.Response) -> TierFault:
    try:
        body = responses.json_of(response)
        return of_engine(FaultCode(body["code"]), str(body.get("detail", body["title"])))
    except (ValueError, KeyError, TypeError):
        return TierFault(FaultClass.BUG, f"the worker answered with status {response.status_code} and no reason")
