"""The sweep: a real stack is put through all that can happen, with canaries wherever a person's data could be, and
then everything it left anywhere is searched for them.

Router, two workers (each behind a recorder of what the router tells it) and their children, in folders of their own.
"""

from __future__ import annotations

import contextlib
import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import mutagen.id3
import numpy as np
import pytest
import soundfile as sf

from router.privacy.canary import CanarySearch, Hit, samples, song, word
from tests import stack as stacks
from tests.openid import EMAIL, SUBJECT, FakeProvider, openid_provider, settings_of
from tests.openid import NAME as PERSON
from tests.processes import family
from tests.recorder import Recorder, recorder
from tests.space_process import start_space
from tests.stack import Stack, free_port, own_ram, start_router, start_worker, wait_for

ADDRESS, FORWARDED = "127.0.0.77", "203.0.113.177"
TEXTS = (
    "name", "tag BWF", "tag ID3", "tag Vorbis", "agent", "referer", "language", "query", "path", "cookie", "bearer",
    "idempotency", "body",
)  # fmt: skip
IN_THE_FILE = frozenset({"tag BWF", "tag ID3", "tag Vorbis", "samples"})
"""What the song itself holds: the one request to its tier may carry it, and nothing else may."""
MAX_BYTES, QUOTA_BYTES = 5_000_000, 14_000_000
_WAIT_S = 90


@dataclass
class Sweep:
    """A running stack, the canaries that are sent through it, and the search for them."""

    running: Stack
    wires: list[Recorder]
    admin_url: str
    log_dir: Path
    canaries: dict[str, bytes]
    provider: FakeProvider
    of_space: list[int]
    """Processes of a Space, where there is one."""
    answers: list[bytes] = field(default_factory=list)
    """Every response that was received, but for the masters themselves."""
    attempts: int = 0
    sent: int = 0
    """Jobs whose song was accepted, and how often one of them was put to work."""

    def text(self, kind: str) -> str:
        return self.canaries[kind].decode()

    def client(self) -> httpx.Client:
        """A client with an address of its own, whose headers carry canaries."""
        said = {"user-agent": "agent", "referer": "referer", "accept-language": "language", "x-forwarded-for": ""}
        headers = {name: self.canaries[kind] for name, kind in said.items() if kind}
        headers |= {"x-forwarded-for": FORWARDED.encode(), "origin": self.running.url.encode()}
        headers["content-disposition"] = b'attachment; filename="' + self.canaries["name"] + b'"'
        return httpx.Client(
            base_url=self.running.url,
            headers=[(name.encode(), value) for name, value in headers.items()],
            cookies={"visitor": quote(self.text("cookie"))},
            params={"name": self.text("name"), "q": self.text("query")},
            transport=httpx.HTTPTransport(local_address=ADDRESS),
            trust_env=False,
            timeout=60,
            event_hooks={"response": [self._note]},
        )

    def _note(self, response: httpx.Response) -> None:
        if "/outputs/" not in response.url.path:
            self.answers.append(repr(response.headers.raw).encode() + response.read())

    def everywhere(self) -> Iterator[Hit]:
        """The canaries that are found anywhere at this moment."""
        search, running = CanarySearch(self.canaries | dict(self._tokens())), self.running
        # Other stacks and browsers, which other tests run meanwhile, have canaries of their own.
        others = ("mastering-", ".mastering-", ".org.chromium")
        shared = [path for path in Path("/dev/shm").iterdir() if not path.name.startswith(others)]  # noqa: S108
        yield from search.files(running.folder, running.ram_dir, *shared)
        yield from search.processes(self.pids())
        yield from search.within("an answer", b"\n".join(self.answers))
        yield from search.within("what strangers see", self.seen_by_strangers())
        for wire in self.wires:
            yield from (
                hit for hit in search.within("a request to a worker", wire.requests) if hit.canary not in IN_THE_FILE
            )

    def _tokens(self) -> Iterator[tuple[str, bytes]]:
        """The tokens and codes that the provider handed out."""
        for number, (code, tokens) in enumerate(self.provider.handed_out):
            yield f"code {number}", code.encode()
            yield f"access token {number}", tokens["access_token"].encode()
            yield f"id token {number}", tokens["id_token"].encode()

    def pids(self) -> Iterator[int]:
        started = [one.pid for one in (self.running.router, *self.running.workers) if one.process.poll() is None]
        for pid in (*started, *self.of_space):
            yield pid
            yield from family(pid)

    def seen_by_strangers(self) -> bytes:
        with httpx.Client(trust_env=False, timeout=30) as http:
            addresses = [
                f"{self.running.url}{path}" for path in ("/", "/v1/options", "/privacy", "/privacy.json", "/docs")
            ]
            addresses += [f"{self.admin_url}{path}" for path in ("/", "/metrics", "/v1/status", "/readyz")]
            found = [http.get(address) for address in addresses]
        assert {answer.status_code for answer in found} == {200}
        return b"\n".join(repr(answer.headers.raw).encode() + answer.content for answer in found)


@contextmanager
def swept(
    folder: Path, patch: pytest.MonkeyPatch, module: str = "router", *, workers: int = 2, space: bool = False
) -> Iterator[Sweep]:
    """A stack to be swept; `module` is what is started as the router, `space` puts a CPU Space beneath the workers."""
    (folder / "tmp").mkdir()
    patch.setenv("TMPDIR", str(folder / "tmp"))
    canaries = {kind: word(kind).encode() for kind in TEXTS}
    canaries |= {"subject": SUBJECT.encode(), "e-mail": EMAIL.encode(), "person": PERSON.encode()}
    canaries |= {"samples": samples(), "address": ADDRESS.encode(), "forwarded": FORWARDED.encode()}
    real_start = stacks._start
    if module != "router":
        patch.setattr(
            stacks,
            "_start",
            lambda command, *more: real_start([module if part == "router" else part for part in command], *more),
        )
    with ExitStack() as cleanup:
        ram_dir = cleanup.enter_context(own_ram())
        started = [start_worker(folder, number) for number in range(workers)]
        for worker in started:
            cleanup.callback(worker.stop)
        for worker in started:
            wait_for(worker, f"{worker.url}/v1/health")
        provider = cleanup.enter_context(openid_provider())
        wires = [cleanup.enter_context(recorder(worker.url)) for worker in started]
        behind = [replace(worker, url=wire.url) for worker, wire in zip(started, wires, strict=True)]
        admin_port = free_port()
        settings = {
            "ROUTER_ADMIN_PORT": str(admin_port), "ROUTER_MAX_BYTES": str(MAX_BYTES),
            "ROUTER_SPOOL_QUOTA_BYTES": str(QUOTA_BYTES), "ROUTER_MAX_QUEUED_PER_ACCOUNT": "4",
            "ROUTER_SPOOL_BYTES_PER_ACCOUNT": str(10 * QUOTA_BYTES),
            "ROUTER_REQUESTS_PER_MINUTE": "100000", "ROUTER_NEW_JOBS_PER_10_MINUTES": "100000",
            "ROUTER_LOG_DIR": str(folder / "log"), "ROUTER_FORWARDED_BY": '["127.0.0.0/8"]',
        }  # fmt: skip
        settings |= {f"ROUTER_{name.upper()}": value for name, value in settings_of(provider).items()}
        of_space: list[int] = []
        if space:
            (folder / "space").mkdir()
            beneath = start_space("cpu", folder / "space")
            cleanup.callback(beneath.stop)
            of_space.append(beneath.pid)
            wires.append(cleanup.enter_context(recorder(beneath.url)))
            entry = f'[[backend]]\nname = "space"\ntier = "cpu_space"\nurl = "{wires[-1].url}"\nregion = "elsewhere"\n'
            (folder / "catalogue.toml").write_text(entry)
            settings["ROUTER_CATALOGUE"] = str(folder / "catalogue.toml")
        router = start_router(folder, [one.url for one in behind], ram_dir, folder / "spool", settings)
        whole = Stack(router, behind, ram_dir, folder / "spool", folder, settings)
        cleanup.callback(lambda: whole.router.stop())
        yield Sweep(whole, wires, f"http://127.0.0.1:{admin_port}", folder / "log", canaries, provider, of_space)


def songs(sweep: Sweep) -> dict[str, bytes]:
    """One song in three formats, each with its canary in the tags that it has."""
    wav = song(sweep.canaries["samples"], sweep.text("tag BWF"))
    sound, rate_hz = sf.read(io.BytesIO(wav))
    return {
        "wav": wav,
        "mp3": _mp3(sound, rate_hz, sweep.text("tag ID3")),
        "ogg": _ogg(sound, rate_hz, sweep.text("tag Vorbis")),
    }


def _mp3(sound: Any, rate_hz: int, tag: str) -> bytes:
    plain = io.BytesIO()
    sf.write(plain, np.asarray(sound), rate_hz, format="MP3")
    tags, head = mutagen.id3.ID3(), io.BytesIO()
    tags.add(mutagen.id3.TIT2(encoding=3, text=[tag]))
    tags.save(head, padding=lambda _: 0)
    return head.getvalue() + plain.getvalue()


def _ogg(sound: Any, rate_hz: int, tag: str) -> bytes:
    out = io.BytesIO()
    with sf.SoundFile(out, "w", rate_hz, 2, format="OGG", subtype="VORBIS") as file:
        file.title = tag
        file.write(np.asarray(sound))
    return out.getvalue()


class Drive:
    """The steps that a stack is put through, one a method."""

    def __init__(self, sweep: Sweep, http: httpx.Client) -> None:
        self._sweep, self._http = sweep, http
        self.songs = songs(sweep)

    def send(self, kind: str = "wav", **wanted: Any) -> str:
        response = self._http.post(
            "/v1/jobs",
            json=wanted,
            headers={"idempotency-key": quote(self._sweep.text("idempotency")) + str(time.monotonic_ns())},
        )
        assert response.status_code == 201, response.text
        job_id = str(response.json()["id"])
        assert self._http.put(f"/v1/jobs/{job_id}/audio", content=self.songs[kind]).status_code == 202
        self._sweep.sent += 1
        return job_id

    def until(self, job_id: str, *states: str) -> dict[str, Any]:
        give_up = time.monotonic() + _WAIT_S
        while time.monotonic() < give_up:
            answer = self._http.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=1"})
            assert answer.status_code == 200, answer.text
            job = answer.json()
            if job["state"] in states:
                return dict(job)
            time.sleep(0.05)
        raise AssertionError(f"the job is {job['state']}, {job['error']}")

    def mastered(self, job_id: str) -> None:
        job = self.until(job_id, "mastered")
        self._sweep.attempts += len(job["attempts"])
        assert self._http.get(f"/v1/jobs/{job_id}/outputs/wav24").status_code == 200
        self._http.delete(f"/v1/jobs/{job_id}")

    def sign_in(self) -> None:
        to_provider = self._http.get("/sign-in").headers["location"]
        back = httpx.get(to_provider, trust_env=False).headers["location"]  # the person agrees at once
        answer = self._http.get(back, params=parse_qs(urlsplit(back).query))
        assert answer.headers["location"] == "/"
        assert self._http.get("/v1/account").json()["kind"] == "person"

    def sign_out(self) -> None:
        assert self._http.post("/sign-out").status_code == 204
        assert self._http.get("/v1/account").status_code == 401

    def erase(self) -> None:
        self._http.put("/v1/account/consent", json={"managed_only": True})
        assert self._http.post("/v1/account/tokens", json={"scope": "jobs"}).status_code == 201
        assert self._http.delete("/v1/account").status_code == 200
        assert self._http.get("/v1/account").status_code == 401

    def success(self) -> None:
        for job_id in [self.send(kind) for kind in self.songs]:
            self.mastered(job_id)

    def strange_requests(self) -> None:
        self._http.get(f"/{quote(self._sweep.text('path'))}")
        self._http.get(
            "/v1/options", headers={"authorization": b"Bearer " + quote(self._sweep.text("bearer")).encode()}
        )
        self._http.post("/v1/jobs", content=self._sweep.canaries["body"], headers={"content-type": "application/json"})
        self._http.post("/v1/jobs", json={"style": self._sweep.text("body")})

    def undecodable(self) -> None:
        job_id = self._http.post("/v1/jobs", json={}).json()["id"]
        bad = self.songs["wav"][:60] + self._sweep.canaries["body"] + self._sweep.canaries["samples"] * 9
        assert self._http.put(f"/v1/jobs/{job_id}/audio", content=bad).status_code == 422

    def too_large(self) -> None:
        assert self._http.post("/v1/jobs", json={"size_bytes": MAX_BYTES + 1}).status_code == 413
        job_id = self._http.post("/v1/jobs", json={}).json()["id"]
        large = self.songs["wav"] * (1 + MAX_BYTES // len(self.songs["wav"]))
        with contextlib.suppress(httpx.TransportError):  # it may hang up on what it does not want
            assert self._http.put(f"/v1/jobs/{job_id}/audio", content=large).status_code == 413
        self._http.delete(f"/v1/jobs/{job_id}")

    def disk_full(self) -> None:
        made = [self._http.post("/v1/jobs", json={"size_bytes": MAX_BYTES}) for _ in range(3)]
        assert made[-1].status_code == 507
        self._end(made)

    def too_many(self) -> None:
        made = [self._http.post("/v1/jobs", json={}) for _ in range(5)]
        assert made[-1].status_code == 429
        self._end(made)

    def _end(self, made: list[httpx.Response]) -> None:
        for response in made:
            if response.status_code == 201:
                self._http.delete(f"/v1/jobs/{response.json()['id']}")

    def broken(self) -> None:
        """A fault of our own: the durable store lacks a table for a moment."""
        with closing(sqlite3.connect(self._sweep.running.folder / "state" / "accounts.sqlite")) as db:
            db.execute("ALTER TABLE consents RENAME TO elsewhere")
            answer = self._http.get("/v1/options")
            db.execute("ALTER TABLE elsewhere RENAME TO consents")
        assert answer.status_code == 500

    def fallback(self) -> None:
        """The worker that has the job dies: another takes over."""
        job_id, worker = self._held()
        worker.kill()
        self._thaw()
        self.mastered(job_id)

    def worker_timeout(self) -> None:
        """The worker that has the job falls silent."""
        job_id, _ = self._held()
        give_up = time.monotonic() + _WAIT_S
        while time.monotonic() < give_up:
            first = self._http.get(f"/v1/jobs/{job_id}").json()["attempts"][0]
            if first["outcome"] != "running":
                break
            time.sleep(0.2)
        assert first["outcome"] in ("crash", "unreachable")
        self._thaw()
        self.mastered(job_id)

    def killed_router(self) -> None:
        job_id, _ = self._held()
        self._sweep.running.router.kill()
        self._thaw()
        self._sweep.running.restart_router()
        self.mastered(job_id)

    def _held(self) -> tuple[str, stacks.Running]:
        """A job that a worker has, frozen in the middle of it."""
        job_id = self.send()
        for worker in self._alive():
            worker.freeze()
        self.until(job_id, "running")
        # People are not told which worker has their job; operators are.
        status = httpx.get(f"{self._sweep.admin_url}/v1/status", trust_env=False).json()
        backends = [backend for tier in status["tiers"] for backend in tier["backends"]]
        (busy,) = [backend["name"] for backend in backends if backend["in_flight"]]
        return job_id, self._sweep.running.workers[int(busy.removeprefix("worker-")) - 1]

    def _thaw(self) -> None:
        for worker in self._alive():
            worker.thaw()

    def _alive(self) -> list[stacks.Running]:
        return [worker for worker in self._sweep.running.workers if worker.process.poll() is None]
