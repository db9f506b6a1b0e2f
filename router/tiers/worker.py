"""The managed worker behind the tier port: one render is one HTTP exchange (`mastering.exchange`)."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any

import httpx

from mastering import exchange
from mastering.contract import FaultCode, OutputFormat, Report
from mastering.signing import Keys, Signed, Signer, checked_url, client_tls
from router.tiers import answers
from router.tiers.breaker import State
from router.tiers.faults import FaultClass, TierFault, of_engine
from router.tiers.port import Accepted, Alive, Event, Finished, Health, OutputBegins, Source, Work, Working

_CONNECT_S = 2.0
_PROBE_S = 1.0
_RESTING = {"warming": State.WARMING, "draining": State.DRAINING}


class WorkerBackend:
    """One managed worker at `url`."""

    silence_s = 10.0

    def __init__(
        self, name: str, url: str, *, tier: str = "managed", signer: Signer | None = None, tls: SSLContext | None = None
    ) -> None:
        """`signer` signs every request and seals every body. Raises ValueError for plain HTTP off loopback."""
        self.name, self.tier = name, tier
        timeout = httpx.Timeout(self.silence_s, connect=_CONNECT_S)
        verify = tls or client_tls()
        self._http = httpx.AsyncClient(base_url=checked_url(url), timeout=timeout, trust_env=False, verify=verify)
        self._signer = signer

    async def probe(self) -> Health:
        try:
            signed = self._sign("GET", "/v1/health")
            response = await answers.ask(self._http, "GET", "/v1/health", timeout=_PROBE_S, headers=signed.headers)
            response.raise_for_status()
            return _health(answers.json_of(response))
        except (httpx.HTTPError, ValueError, KeyError, TypeError, OverflowError) as error:
            return Health(False, f"no healthy answer ({type(error).__name__})")

    async def wake(self) -> None:
        return  # a worker never sleeps

    async def run(self, work: Work) -> AsyncGenerator[Event]:
        with _translated(reached=False):
            slot = await self._reserve()
        with _translated(reached=True):
            signed = self._sign(
                "POST", "/v1/renders", {exchange.SLOT_HEADER: slot, "content-type": exchange.MEDIA_TYPE}
            )
            body = _request(work, exchange.Seal(signed.keys.request))
            headers = {**signed.headers, **answers.IDENTITY}
            async with self._http.stream("POST", "/v1/renders", content=body, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(await answers.whole(response), signed.keys.response)
                answers.refuse_packed(response)
                async for event in _events(response, exchange.Seal(signed.keys.response)):
                    yield event

    async def _reserve(self) -> str:
        """A slot first: a busy worker costs no upload, since the client sends the whole body before it reads."""
        timeout, signed = httpx.Timeout(5.0, connect=_CONNECT_S), self._sign("POST", "/v1/slots")
        response = await answers.ask(self._http, "POST", "/v1/slots", timeout=timeout, headers=signed.headers)
        if response.status_code != httpx.codes.CREATED:
            raise _refusal(response, signed.keys.response)
        try:
            return str(answers.json_of(response)["slot"])
        except (KeyError, TypeError):
            raise TierFault(FaultClass.BUG, "the worker's answer is not in the protocol") from None

    async def close(self) -> None:
        await self._http.aclose()

    def _sign(self, method: str, path: str, headers: dict[str, str] | None = None) -> Signed:
        if self._signer is None:
            return Signed(headers or {}, Keys())
        return self._signer.sign(method, str(self._http.base_url.join(path)), headers or {})


def _health(body: Any) -> Health:
    """Raises KeyError, TypeError, ValueError or OverflowError if the worker's answer is not one of ours."""
    if body["protocol"] != exchange.PROTOCOL_VERSION:
        return Health(False, f"speaks protocol {answers.text(body['protocol'], 8)}, not {exchange.PROTOCOL_VERSION}")
    resting = _RESTING.get(body["state"])
    return Health(
        up=resting is None,
        detail="answers" if resting is None else f"says that it is {resting}",
        slots=int(body["slots"]["total"]),
        engine_version=_word(body.get("engine_version"), 32),
        device=_word(body.get("device"), 64),
        resting=resting,
    )


def _word(said: Any, longest: int) -> str | None:
    return None if said is None else answers.text(said, longest)


async def _request(work: Work, seal: exchange.Seal) -> AsyncIterator[bytes]:
    asked = exchange.SettingsEvent(settings=work.settings, deadline_s=work.deadline_s)
    yield seal.pass_on(exchange.encode_event(asked))
    parts = {"audio": Source(work.size_bytes, work.open_audio)}
    parts |= {f"reference/{number}": source for number, source in enumerate(work.references)}
    for name, source in parts.items():
        yield seal.pass_on(exchange.encode_event(exchange.PartEvent(name=name, size=source.size_bytes)))
        async for chunk in source.open():
            yield seal.pass_on(exchange.data_header(len(chunk)) + chunk)
    yield exchange.encode_event(seal.close(exchange.EndEvent()))


async def _events(response: httpx.Response, seal: exchange.Seal) -> AsyncIterator[Event]:
    """The answer's frames, read to the end of the answer, so that the connection may serve again."""
    reader = exchange.FrameReader(seal)
    report: Report | None = None
    finished: Finished | None = None
    async for chunk in response.aiter_raw():
        for frame in reader.feed(chunk):
            if finished is not None:
                raise TierFault(FaultClass.BUG, "the worker sent more after the end")
            match frame:
                case bytes():
                    yield frame
                case exchange.AcceptedEvent():
                    yield Accepted(frame.device)
                case exchange.HeartbeatEvent():
                    yield Alive()
                case exchange.ProgressEvent():
                    yield Working(frame.stage, frame.fraction)
                case exchange.ReportEvent():
                    report = frame.report
                case exchange.PartEvent():
                    yield OutputBegins(OutputFormat(frame.name.removeprefix("output/")), frame.size)
                case exchange.EndEvent():
                    if report is None:
                        raise TierFault(FaultClass.BAD_OUTPUT, "the master came without its report")
                    finished = Finished(report)
                case exchange.FaultEvent():
                    raise of_engine(frame.code, frame.message, frame.numbers)
                case _:
                    raise TierFault(FaultClass.BUG, "the worker sent an event out of its turn")
    if finished is None:
        raise TierFault(FaultClass.CRASH, "the worker's answer ended before the master was whole")
    yield finished


def _refusal(response: httpx.Response, key: bytes | None) -> TierFault:
    """What an answer other than the hoped-for one means. One that ends the job must be sealed by `key`."""
    status = response.status_code
    if status in (409, 429, 503):
        after = response.headers.get("retry-after", "")
        return TierFault(FaultClass.CAPACITY, "the worker is busy", retry_after_s=answers.seconds(after, 1.0))
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
    expected = exchange.problem_seal(key, response.status_code, response.content)
    return hmac.compare_digest(response.headers.get(exchange.SEAL_HEADER, "").encode(), expected.encode())


def _unsealed(status: int) -> TierFault:
    """Anybody in between may have said it: it must not stop the job for good."""
    return TierFault(FaultClass.BUG, f"the worker answered with status {status} and no seal of its own")


def _from_problem(response: httpx.Response) -> TierFault:
    try:
        body = answers.json_of(response)
        return of_engine(FaultCode(body["code"]), str(body.get("detail", body["title"])))
    except (ValueError, KeyError, TypeError):
        return TierFault(FaultClass.BUG, f"the worker answered with status {response.status_code} and no reason")


@contextmanager
def _translated(*, reached: bool) -> Iterator[None]:
    """`answers.translated`, and what is not in the protocol."""
    try:
        with answers.translated("the worker", reached=reached):
            yield
    except exchange.SealBroken:
        raise TierFault(FaultClass.BAD_OUTPUT, "what came is not what the worker sent: its seal differs") from None
    except (exchange.ProtocolError, ValueError) as error:
        if isinstance(error, TierFault):
            raise
        raise TierFault(FaultClass.BUG, "the worker's answer is not in the protocol") from None
