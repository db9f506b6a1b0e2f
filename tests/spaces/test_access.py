"""Which requests a Space accepts, and how it refuses the others."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from mastering.contract import Effort, FaultCode, Settings
from tests.songs import demo
from tests.space_process import SpaceProcess, call, put, put_together, running_space, start_space
from tests.spaces.test_the_life_of_a_job import files_left, memories

KEY = "correct horse battery staple"
SONG_CANARY = "canary-of-a-song"


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 3).read_bytes()


@pytest.fixture(scope="module")
def space() -> Iterator[SpaceProcess]:
    with running_space("cpu", places=2, max_bytes=2_000_000, concurrency=1) as running:
        yield running


def code_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"title", "status", "code", "detail"} <= set(body)
    assert body["status"] == answer.status_code
    assert body["code"] in list(FaultCode)
    return str(body["code"])


def test_an_upload_that_says_it_is_too_large_is_refused_before_a_byte_of_it(space: SpaceProcess) -> None:
    answer = put(space, secrets.token_hex(16), bytes(2_000_001))
    assert (answer.status_code, code_of(answer)) == (413, "too_large")


def test_an_upload_that_turns_out_too_large_is_refused_and_dropped(space: SpaceProcess) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(100_000)

    with space.client() as client:
        try:
            answer = client.put(f"/v1/jobs/{secrets.token_hex(16)}/audio", content=chunks())
        except httpx.WriteError:  # the answer may come before the last byte, and the connection close on it
            pass
        else:
            assert (answer.status_code, code_of(answer)) == (413, "too_large")
    assert memories(space.pid) == 0


def test_the_same_part_twice_is_a_conflict(space: SpaceProcess, song: bytes) -> None:
    job = secrets.token_hex(16)
    assert put(space, job, song).status_code == 201
    answer = put(space, job, song)
    assert (answer.status_code, code_of(answer)) == (409, "bad_request")
    with space.client() as client:
        client.delete(f"/v1/jobs/{job}")


def test_a_full_space_says_when_to_ask_again(space: SpaceProcess, song: bytes) -> None:
    jobs = [secrets.token_hex(16) for _ in range(3)]
    answers = [put(space, job, song) for job in jobs]
    assert [answer.status_code for answer in answers] == [201, 201, 503]
    assert code_of(answers[2]) == "busy"
    assert int(answers[2].headers["retry-after"]) > 0
    assert put(space, jobs[0], song, "references/0").status_code == 201, "a job that has its place may go on"
    with space.client() as client:
        for job in jobs:
            client.delete(f"/v1/jobs/{job}")


@pytest.mark.parametrize("job", ["short", "0" * 31, "A" * 32, "0" * 33, "..%2f..%2fetc"])
def test_an_id_of_another_form_is_nowhere(space: SpaceProcess, job: str) -> None:
    with space.client() as client:
        assert client.put(f"/v1/jobs/{job}/audio", content=b"RIFF").status_code == 404
    assert memories(space.pid) == 0


def test_a_job_without_a_song_is_told_what_to_do(space: SpaceProcess) -> None:
    last = call(space, secrets.token_hex(16))
    assert (last["type"], last["code"]) == ("fault", "bad_request")
    assert "PUT" in last["message"]


@pytest.mark.parametrize(
    "settings",
    [{"target": "the moon"}, {"style": "../x"}, {"amount_percent": 101}, {"nobody": "knows"}, {"outputs": []}, "none"],
)
def test_bad_settings_are_refused_without_being_repeated(space: SpaceProcess, song: bytes, settings: object) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    with space.client() as client:
        event = client.post("/gradio_api/call/master", json={"data": [job, settings, None]}).json()["event_id"]
        text = client.get(f"/gradio_api/call/master/{event}").text
    last = json.loads(text.strip().splitlines()[-1].removeprefix("data: "))[0]
    assert (last["type"], last["code"]) == ("fault", "bad_settings")
    assert "nobody" not in last["message"] or settings == {"nobody": "knows"}
    assert memories(space.pid) == 0, "a call that fails has had its only chance"


def test_references_with_a_gap_are_refused(space: SpaceProcess, song: bytes) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    put(space, job, song, "references/1")
    last = call(space, job)
    assert (last["type"], last["code"]) == ("fault", "bad_request")


CLOSED = [
    ("POST", "/gradio_api/upload"),
    ("GET", "/gradio_api/file=/etc/hostname"),
    ("GET", "/gradio_api/proxy=https://owner-name.hf.space/"),
    ("GET", "/monitoring"),
    ("GET", "/monitoring/summary"),
    ("POST", "/gradio_api/component_server"),
    ("GET", "/gradio_api/runs"),
    ("POST", "/gradio_api/run/master"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/gradio_api/vibe-code/"),
    ("GET", "/static/../page.py"),
    ("GET", "/static/%2e%2e/page.py"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_gradios_other_routes_are_not_there(space: SpaceProcess, method: str, path: str) -> None:
    with space.client() as client:
        answer = client.request(method, path, files={"files": b"RIFF"} if method == "POST" else None)
    assert answer.status_code == 404
    assert files_left(space) == []


def test_another_site_may_not_send_for_its_visitors(space: SpaceProcess, song: bytes) -> None:
    answer = put(space, secrets.token_hex(16), song, origin="https://elsewhere.example")
    assert answer.status_code == 403
    job = secrets.token_hex(16)
    assert put(space, job, song, origin=space.url).status_code == 201
    with space.client() as client:
        client.delete(f"/v1/jobs/{job}")


def test_a_call_is_no_way_to_send_a_song(space: SpaceProcess) -> None:
    with space.client() as client:
        answer = client.post("/gradio_api/call/master", json={"data": ["x" * 100_000, {}, None]})
    assert answer.status_code == 413


def test_every_answer_carries_the_headers(space: SpaceProcess) -> None:
    with space.client() as client:
        for path in ("/", "/v1/health", "/config", "/nowhere", "/static/app.css", "/v1/jobs/x"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer"), path


def test_without_the_key_there_is_no_job_and_no_call(song: bytes) -> None:
    with running_space("cpu", key=KEY) as space:
        job = secrets.token_hex(16)
        for wrong in ({}, {"x-mastering-key": "guess"}):
            with space.client(headers=wrong) as client:
                assert client.get("/v1/health").status_code == 401
                assert client.put(f"/v1/jobs/{job}/audio", content=song).status_code == 401
                assert client.delete(f"/v1/jobs/{job}").status_code == 401
                asked = {"data": [job, {}, None]}
                assert client.post("/gradio_api/call/master", json=asked).status_code == 401
                assert client.post("/gradio_api/queue/join", json=asked).status_code == 401
                assert "can’t send one" in client.get("/").text
        right = {"x-mastering-key": KEY}
        assert put(space, job, song, **right).status_code == 201
        assert call(space, job, headers=right)["type"] == "end"


def test_the_log_holds_how_a_render_went_and_nothing_of_whom(song: bytes) -> None:
    with running_space("cpu") as space:
        job = secrets.token_hex(16)
        with space.client(headers={"user-agent": SONG_CANARY, "referer": SONG_CANARY}) as client:
            client.put(f"/v1/jobs/{job}/audio?name={SONG_CANARY}", content=song)
            client.get(f"/{SONG_CANARY}")
        call(space, job, Settings(), headers={"user-agent": SONG_CANARY})
        put(space, bad := secrets.token_hex(16), SONG_CANARY.encode() * 99)
        call(space, bad)
        space.terminate()
        said = "".join(space.said)
    events = [json.loads(line) for line in said.splitlines()]
    assert [one["event"] for one in events] == ["listening", "render_ended", "render_ended", "stopping", "stopped"]
    assert [one["outcome"] for one in events if "outcome" in one] == ["done", "unsupported_format"]
    for canary in (SONG_CANARY, job, bad, "127.0.0.1", str(space.folder)):
        assert canary not in said


FAKE_SPACES = """
import gradio as gr

def GPU(duration=None):
    def decorate(task):
        def over_quota(*arguments):
            raise gr.Error("Try again in 3:00:00", title="ZeroGPU quota exceeded", print_exception=False)
            yield
        return over_quota
    return decorate
"""


def test_zero_gpus_own_errors_arrive_with_their_titles_and_end_the_job(tmp_path: Path, song: bytes) -> None:
    """The package that speaks to ZeroGPU is replaced: it raises as spaces 0.51 does when a quota is spent."""
    put_together("zero_gpu", tmp_path / "app")
    (tmp_path / "app" / "spaces.py").write_text(FAKE_SPACES)
    space = start_space("zero_gpu", tmp_path)
    try:
        job = secrets.token_hex(16)
        put(space, job, song)
        client = Client(space.url, verbose=False)
        with pytest.raises(AppError) as raised:
            client.predict(job, {"effort": Effort.FIT.value}, api_name="/master")
        assert raised.value.title == "ZeroGPU quota exceeded"
        assert memories(space.pid) == 0
        put(space, job, song)
        assert call(space, job)["type"] == "end", "a quick master needs no quota"
        client.close()
    finally:
        space.stop()
