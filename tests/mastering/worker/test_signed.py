"""A worker that has keys, over HTTP and over TLS."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mastering.protocol.frames import MEDIA_TYPE, SEAL_HEADER, SLOT_HEADER, Seal, problem_seal
from mastering.protocol.signing import Signer, client_tls
from tests.certificates import self_signed
from tests.mastering.worker_process import FAKE, WorkerProcess, request_body, running_worker, until

SECRET = "a secret that is long enough to be one"
KEYS = json.dumps({"router": SECRET})


@pytest.fixture(scope="module")
def signed_worker() -> Iterator[WorkerProcess]:
    with running_worker(signer=Signer("router", SECRET.encode()), keys=KEYS) as worker:
        yield worker


def test_a_signed_and_sealed_render_comes_back_sealed(signed_worker: WorkerProcess) -> None:
    answer = signed_worker.exchange(lambda seal: request_body(b"abc", seal=seal))
    assert answer.outputs == {"output/wav16": b"abc"}
    assert answer.types[-1] == "end"


def test_the_rendering_process_learns_no_key_and_reaches_no_network() -> None:
    with running_worker(f"{FAKE}:pry", signer=Signer("router", SECRET.encode()), keys=KEYS) as worker:
        port = str(worker.client.base_url.port).encode()
        answer = worker.exchange(lambda seal: request_body(port, seal=seal))
    found = json.loads(answer.outputs["output/wav16"])
    assert "MASTERING_WORKER" not in found["environment"]
    assert "PATH" in found["environment"]
    assert found["read"] == []
    assert found["connect"] != 0


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/health"), ("POST", "/v1/slots"), ("POST", "/v1/renders")])
def test_an_unsigned_request_is_refused_everywhere(signed_worker: WorkerProcess, method: str, path: str) -> None:
    response = signed_worker.client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


def test_an_unsigned_upload_is_refused_before_its_bytes(signed_worker: WorkerProcess) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(320):
            sent += 65_536
            yield bytes(65_536)

    response = signed_worker.client.post("/v1/renders", content=body(), headers={"content-length": str(320 * 65_536)})
    assert response.status_code == 401
    assert sent < 320 * 65_536


def test_a_request_that_was_sent_before_is_refused(signed_worker: WorkerProcess) -> None:
    headers = signed_worker.sign("GET", "/v1/health").headers
    statuses = [signed_worker.client.get("/v1/health", headers=headers).status_code for _ in range(2)]
    assert statuses == [200, 401]


@pytest.mark.parametrize("key", [None, b"another key, of thirty-two bytes"], ids=["without a seal", "another's seal"])
def test_a_body_that_is_not_sealed_by_the_signer_is_refused(signed_worker: WorkerProcess, key: bytes | None) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        signed_worker.exchange(lambda _: request_body(b"abc", seal=Seal(key)))
    assert caught.value.response.status_code == 400
    until(lambda: signed_worker.free_slots() == 1)


def test_a_refusal_by_status_is_sealed(signed_worker: WorkerProcess) -> None:
    signed = signed_worker.sign(
        "POST", "/v1/renders", **{SLOT_HEADER: signed_worker.slot(), "content-type": MEDIA_TYPE}
    )
    response = signed_worker.client.post("/v1/renders", content=b"no frames", headers=signed.headers)
    assert response.status_code == 400
    assert signed.keys.response is not None
    assert response.headers[SEAL_HEADER] == problem_seal(signed.keys.response, 400, response.content)


def test_a_body_of_another_exchange_is_refused(signed_worker: WorkerProcess) -> None:
    bodies: list[bytes] = []

    def keep(seal: Seal) -> bytes:
        bodies.append(request_body(b"abc", seal=seal))
        return bodies[0]

    assert signed_worker.exchange(keep).types[-1] == "end"
    with pytest.raises(httpx.HTTPStatusError) as caught:
        signed_worker.exchange(lambda _: bodies[0])
    assert caught.value.response.status_code == 400


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"HOST": "0.0.0.0"}, "MASTERING_WORKER_KEYS"),  # noqa: S104 - the test is that it is refused
        ({"HOST": "0.0.0.0", "KEYS": KEYS}, "MASTERING_WORKER_TLS_CERTIFICATE"),  # noqa: S104
        ({"HOST": "::"}, "MASTERING_WORKER_KEYS"),
        ({"KEYS": '{"router": "short"}'}, "at least 32"),
        ({"TLS_KEY": "key.pem"}, "MASTERING_WORKER_TLS_CERTIFICATE"),
    ],
    ids=str,
)
def test_a_worker_that_strangers_could_reach_does_not_start(settings: dict[str, str], cure: str) -> None:
    environment = {**os.environ, **{f"MASTERING_WORKER_{name}": value for name, value in settings.items()}}
    ended = subprocess.run(
        [sys.executable, "-m", "mastering.worker", "--port", "0"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert cure in ended.stderr
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_worker(certificate: tuple[Path, Path]) -> Iterator[WorkerProcess]:
    chain, key = certificate
    with running_worker(
        signer=Signer("router", SECRET.encode()),
        tls=client_tls(str(chain)),
        keys=KEYS,
        tls_certificate=chain,
        tls_key=key,
    ) as worker:
        yield worker


def test_a_render_travels_inside_tls(tls_worker: WorkerProcess) -> None:
    answer = tls_worker.exchange(lambda seal: request_body(os.urandom(1_000_000), seal=seal))
    assert answer.events[-1].type == "end"
    assert len(answer.outputs["output/wav16"]) == 1_000_000


@pytest.mark.parametrize(("newest", "works"), [(ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)])
def test_nothing_older_than_tls_1_3_is_spoken(
    tls_worker: WorkerProcess, certificate: tuple[Path, Path], newest: ssl.TLSVersion, works: bool
) -> None:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.maximum_version = newest
    url = tls_worker.client.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                version = wrapped.version()
        except ssl.SSLError:
            version = None
    assert (version == "TLSv1.3") is works


def test_a_caller_refuses_a_worker_whose_certificate_it_does_not_know(tls_worker: WorkerProcess) -> None:
    with httpx.Client(verify=client_tls(), trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(str(tls_worker.client.base_url))


def test_hanging_up_inside_tls_frees_the_slot(tls_worker: WorkerProcess, certificate: tuple[Path, Path]) -> None:
    signed = tls_worker.sign("POST", "/v1/renders", **{SLOT_HEADER: tls_worker.slot(), "content-type": MEDIA_TYPE})

    def half() -> Iterator[bytes]:
        yield request_body(b"abc")[:20]
        until(lambda: tls_worker.health()["slots"]["running"] == 1)
        raise LookupError("the caller has had enough")

    other = httpx.Client(base_url=tls_worker.client.base_url, verify=client_tls(str(certificate[0])), trust_env=False)
    with other, pytest.raises(LookupError):
        other.post("/v1/renders", content=half(), headers=signed.headers)
    until(lambda: tls_worker.free_slots() == 1, tries=100)
