"""Resumable uploads by tus 1.0: with a client from a package, through a killed router, and by the letter."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from tusclient.client import TusClient
from tusclient.uploader import Uploader

from tests.api import Api
from tests.songs import demo
from tests.stack import Stack

TUS = {"tus-resumable": "1.0.0"}
PIECE = {**TUS, "content-type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 20).read_bytes()


@pytest.fixture(scope="module")
def running(shared_router: Stack) -> Stack:
    return shared_router


@pytest.fixture
def api(running: Stack) -> Iterator[Api]:
    with Api(running.url) as client:
        yield client


def begin(api: Api, length: int, **metadata: str) -> str:
    pairs = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
    headers = {**TUS, "upload-length": str(length), "upload-metadata": pairs}
    response = api.http.post("/v1/uploads", headers=headers)
    assert response.status_code == 201, response.text
    return str(response.headers["location"])


def client_upload(running: Stack, song: bytes, chunk_bytes: int, url: str | None = None) -> Uploader:
    client = TusClient(f"{running.url}/v1/uploads")
    return client.uploader(file_stream=io.BytesIO(song), chunk_size=chunk_bytes, url=url, metadata={"target": "cd"})


def job_of(address: str) -> str:
    return address.rstrip("/").split("/")[-2]


def test_a_tus_client_uploads_a_song_in_pieces(running: Stack, api: Api, song: bytes) -> None:
    uploader = client_upload(running, song, chunk_bytes=700_001)
    uploader.upload()
    job = api.show(job_of(uploader.url))
    assert (job["state"], job["settings"]["target"]) == ("queued", "cd")
    assert job["facts"]["frames"] == 20 * 44_100
    api.http.delete(f"/v1/jobs/{job['id']}")


def test_a_tus_upload_goes_on_after_the_router_was_killed(running: Stack, api: Api, song: bytes) -> None:
    first = client_upload(running, song, chunk_bytes=500_000)
    first.upload_chunk()
    first.upload_chunk()
    running.router.kill()
    running.restart_router()
    second = client_upload(running, song, chunk_bytes=500_000, url=first.url)
    assert second.offset == 1_000_000
    second.upload()
    assert api.show(job_of(first.url))["state"] == "queued"
    api.http.delete(f"/v1/jobs/{job_of(first.url)}")


def test_an_upload_begun_by_tus_is_continued_by_a_plain_put(api: Api, song: bytes) -> None:
    address = begin(api, len(song))
    half = len(song) // 2
    response = api.http.patch(address, content=song[:half], headers={**PIECE, "upload-offset": "0"})
    assert (response.status_code, response.headers["upload-offset"]) == (204, str(half))
    response = api.http.put(address, content=song[half:], headers={"upload-offset": str(half)})
    assert (response.status_code, response.json()["state"]) == (202, "queued")
    assert api.http.head(address, headers=TUS).headers["upload-offset"] == str(len(song))
    assert api.http.delete(address, headers=TUS).status_code == 204


def test_the_server_says_what_it_can_do(api: Api) -> None:
    response = api.http.options("/v1/uploads")
    assert response.status_code == 204
    assert response.headers["tus-version"] == "1.0.0"
    assert {"creation", "termination"} <= set(response.headers["tus-extension"].split(","))
    assert int(response.headers["tus-max-size"]) == 512 * 1024 * 1024


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"upload-length": "10"}, 412, "tus_version"),
        ({"tus-resumable": "0.2.2", "upload-length": "10"}, 412, "tus_version"),
        (TUS, 411, "length_required"),
        ({**TUS, "upload-length": str(600 * 2**20)}, 413, "too_large"),
        ({**TUS, "upload-length": "10", "upload-metadata": "target bW9vbg=="}, 422, "bad_settings"),
        ({**TUS, "upload-length": "10", "upload-metadata": "target !!"}, 422, "bad_settings"),
        ({**TUS, "upload-length": "-1"}, 400, "bad_request"),
    ],
)
def test_a_bad_beginning_is_refused(api: Api, headers: dict[str, str], status: int, code: str) -> None:
    response = api.http.post("/v1/uploads", headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_piece_at_another_offset_is_refused_and_told_where_to_go_on(api: Api) -> None:
    address = begin(api, 100)
    response = api.http.patch(address, content=b"x" * 10, headers={**PIECE, "upload-offset": "5"})
    assert (response.status_code, response.json()["offset_bytes"]) == (409, 0)
    api.http.delete(address, headers=TUS)


def test_a_piece_of_another_media_type_is_refused(api: Api) -> None:
    address = begin(api, 100)
    response = api.http.patch(address, content=b"x", headers={**TUS, "upload-offset": "0", "content-type": "audio/wav"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    api.http.delete(address, headers=TUS)


def test_a_file_that_is_no_audio_is_refused_with_its_last_piece(api: Api) -> None:
    text = b"this is no song " * 1000
    address = begin(api, len(text))
    response = api.http.patch(address, content=text, headers={**PIECE, "upload-offset": "0"})
    assert (response.status_code, response.json()["code"]) == (422, "unsupported_format")
    assert api.show(job_of(address))["state"] == "failed"


def test_a_file_name_in_the_metadata_is_dropped_unread(running: Stack, api: Api) -> None:
    address = begin(api, 100, filename="a secret song.wav", target="club")
    shown = api.http.get(f"/v1/jobs/{job_of(address)}").text
    assert "club" in shown
    assert "secret" not in shown
    stored = b"".join(path.read_bytes() for path in running.ram_dir.rglob("*") if path.is_file())
    assert b"secret song" not in stored
    api.http.delete(address, headers=TUS)


def test_a_kind_and_its_options_may_be_in_the_metadata(api: Api) -> None:
    url = begin(api, 10, kind="master", options='{"style": "warm", "amount_percent": 10}', outputs="flac,mp3")
    job = api.http.get(url.removesuffix("/audio")).json()
    assert (job["kind"], job["settings"]["style"], job["settings"]["outputs"]) == ("master", "warm", ["flac", "mp3"])


@pytest.mark.parametrize("options", ["{", "[]", '"warm"'])
def test_options_in_the_metadata_that_are_no_object_are_refused(api: Api, options: str) -> None:
    pair = f"options {base64.b64encode(options.encode()).decode()}"
    answer = api.http.post("/v1/uploads", headers={**TUS, "upload-length": "10", "upload-metadata": pair})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_settings")


def test_a_song_may_come_with_the_creation(api: Api, song: bytes) -> None:
    headers = {**PIECE, "upload-length": str(len(song))}
    half = api.http.post("/v1/uploads", headers=headers, content=song[:100_000])
    assert (half.status_code, half.headers["upload-offset"]) == (201, "100000")
    rest = {**PIECE, "upload-offset": "100000", "content-type": "Application/Offset+Octet-Stream; x=1"}
    assert api.http.patch(half.headers["location"], headers=rest, content=song[100_000:]).status_code == 204
    whole = api.http.post("/v1/uploads", headers=headers, content=song)
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, str(len(song)))
    for answer in (half, whole):
        job = api.show(job_of(answer.headers["location"]))
        assert job["state"] == "queued"
        api.http.delete(f"/v1/jobs/{job['id']}")
    wrong = api.http.post("/v1/uploads", headers={**headers, "content-type": "audio/wav"}, content=song)
    assert (wrong.status_code, wrong.json()["code"]) == (415, "unsupported_media_type")


def test_an_empty_patch_at_the_end_is_fine_and_one_elsewhere_is_not(api: Api, song: bytes) -> None:
    address = begin(api, len(song))
    assert api.http.patch(address, headers={**PIECE, "upload-offset": "0"}, content=song).status_code == 204
    again = api.http.patch(address, headers={**PIECE, "upload-offset": str(len(song))}, content=b"")
    assert (again.status_code, again.headers["upload-offset"]) == (204, str(len(song)))
    elsewhere = api.http.patch(address, headers={**PIECE, "upload-offset": "5"}, content=b"")
    assert elsewhere.status_code == 409
    api.http.delete(f"/v1/jobs/{job_of(address)}")


def test_an_empty_file_is_refused_before_there_is_a_job(api: Api) -> None:
    refused = api.http.post("/v1/uploads", headers={**TUS, "upload-length": "0"})
    assert (refused.status_code, refused.json()["code"]) == (422, "empty_file")


def test_clients_that_can_send_no_patch_override_the_method(api: Api, song: bytes) -> None:
    address = begin(api, len(song))
    patch = {**PIECE, "x-http-method-override": "patch", "upload-offset": "0"}
    first = api.http.post(address, headers=patch, content=song[:1000])
    assert (first.status_code, first.headers["upload-offset"]) == (204, "1000")
    assert api.http.post(address, headers={**PIECE, "upload-offset": "1000"}, content=b"x").status_code == 405
    assert api.http.post(address, headers={**TUS, "x-http-method-override": "DELETE"}).status_code == 204
    assert api.show(job_of(address))["state"] == "cancelled"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/uploads", 411),
        ("PATCH", "/v1/jobs/none/audio", 404),
        ("HEAD", "/v1/jobs/none/audio", 404),
        ("GET", "/v1/nowhere", 404),
        ("PUT", "/v1/uploads", 405),
    ],
)
def test_every_answer_to_a_tus_client_says_the_version(api: Api, method: str, path: str, status: int) -> None:
    answer = api.http.request(method, path, headers={**PIECE, "upload-offset": "0"})
    assert (answer.status_code, answer.headers["tus-resumable"]) == (status, "1.0.0")


def test_a_wrong_offset_is_a_409_that_says_the_right_one(api: Api, song: bytes) -> None:
    address = begin(api, len(song))
    wrong = api.http.patch(address, headers={**PIECE, "upload-offset": "9"}, content=song[9:])
    assert (wrong.status_code, wrong.json()["offset_bytes"]) == (409, 0)
    api.http.delete(f"/v1/jobs/{job_of(address)}")
