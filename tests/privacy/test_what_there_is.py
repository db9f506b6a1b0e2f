"""P08, P11, P17, P18, P20, P38, P40, P55, P64: looked at from outside, the service has only what it says it has."""

from __future__ import annotations

import ast
import random
import re
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import router
from router.admin.app import make_admin
from router.app.asgi import make_app
from router.core import clock
from router.core.settings import RouterSettings
from router.http.access_log import templates_of
from router.jobs import reaper
from router.spool.disk import Spool
from router.spool.port import BlobGone
from router.store.record import new_id
from router.tiers.fake import FakeBackend
from router.web.pages import static_files
from tests.api import Api
from tests.recorder import recorder
from tests.served import served
from tests.services import mastering, services_in
from tests.songs import demo
from tests.stack import stack

ROUTER = Path(router.__file__).parent
HOUR_S = 3600.0


async def test_p08_no_audio_is_read_after_its_time_nor_kept_beyond_the_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand songs at random times, and sweeps only as often as the reaper does."""
    now_s, ttl_s, draw = 1000.0, RouterSettings.model_fields["output_ttl_s"].default, random.Random(8)
    monkeypatch.setattr(clock, "now", lambda: now_s)
    spool = Spool(tmp_path / "spool", tmp_path / "keys", 1 << 30)
    born: dict[str, float] = {}
    for now_s in sorted(1000.0 + draw.uniform(0, 600) for _ in range(1000)):
        born[await spool.reserve(1, now_s + ttl_s)] = now_s
    oldest_read_s = oldest_kept_s = 0.0
    for ref, born_s in born.items():
        now_s = born_s + ttl_s - 0.5
        await spool.extent(ref)
        oldest_read_s = max(oldest_read_s, now_s - born_s)
        now_s = born_s + ttl_s
        with pytest.raises(BlobGone):
            await spool.extent(ref)
    now_s = min(born.values()) + ttl_s
    while born:
        now_s += reaper.EVERY_S
        for ref in spool.expired():
            oldest_kept_s = max(oldest_kept_s, now_s - born.pop(ref))
            await spool.drop(ref)
    assert oldest_read_s < ttl_s
    assert oldest_kept_s <= HOUR_S
    assert not [path for path in (tmp_path / "spool").glob("*/*") if path.is_file()]


def test_p11_a_backup_of_everything_holds_no_audio(tmp_path: Path) -> None:
    with stack(tmp_path) as running, Api(running.url) as api:
        api.mastered(api.send(demo(tmp_path / "song.wav", 2))["id"])
        backup = tmp_path / "backup.tar"
        lying = {path.name for path in running.spool_dir.glob("*/*")}
        subprocess.run(["tar", "--exclude-caches", "-cf", backup, running.spool_dir, tmp_path / "state"], check=True)
    assert lying
    with tarfile.open(backup) as tar:
        names = {Path(name).name for name in tar.getnames()}
    assert "accounts.sqlite" in names
    assert not names & lying


def test_p20_the_folders_and_files_of_a_running_router_are_ours_alone(tmp_path: Path) -> None:
    with stack(tmp_path, settings={"log_dir": tmp_path / "log"}) as running, Api(running.url) as api:
        api.mastered(api.send(demo(tmp_path / "song.wav", 2))["id"])
        folders = (running.ram_dir, running.spool_dir, tmp_path / "state", tmp_path / "log")
        found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
        modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in found if path.exists()}
        wrong = {path for path, mode in modes.items() if mode != (0o700 if Path(path).is_dir() else 0o600)}
    assert len(modes) > 10
    assert wrong == set()


def test_p20_a_million_job_addresses_are_all_different_and_128_bits_long() -> None:
    ids = {new_id() for _ in range(1_000_000)}
    assert len(ids) == 1_000_000
    assert {len(one) for one in ids} == {22}
    assert len({one[:4] for one in ids}) > 900_000 // 16


async def test_p20_another_s_job_is_the_same_answer_as_a_missing_one(tmp_path: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as running:
        job = await running.create()
        await running.services.change(job["id"], lambda job: job.with_(account="somebody else"))
        for method, tail in (
            ("GET", ""),
            ("DELETE", ""),
            ("PUT", "/audio"),
            ("GET", "/outputs/wav24"),
            ("HEAD", "/audio"),
        ):
            others = await running.http.request(method, f"/v1/jobs/{job['id']}{tail}")
            missing = await running.http.request(method, f"/v1/jobs/{new_id()}{tail}")
            assert others.status_code == 404
            assert (others.content, _steady(others)) == (missing.content, _steady(missing))


def _steady(response: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers.items() if name not in ("date",)]


def test_p17_p19_whoever_sends_a_song_learns_no_worker_and_the_router_learns_no_name(tmp_path: Path) -> None:
    name = "canary-7f3a my best song.wav"
    song = demo(tmp_path / name, 2)
    with stack(tmp_path) as running, recorder(running.url) as wire:
        argv = [sys.executable, "-m", "router", "submit", str(song), "-o", str(tmp_path / "out.wav"), "--url", wire.url]
        subprocess.run(argv, check=True, capture_output=True)
        with httpx.Client(base_url=wire.url, trust_env=False) as http:
            told = b"".join(http.get(path).content for path in ("/", "/v1/options", "/privacy.json", "/openapi.json"))
        port = running.workers[0].url.rpartition(":")[2].encode()
    assert len(wire.requests) > song.stat().st_size, "the song went over the wire"
    assert b"canary" not in wire.requests
    assert b"my best" not in wire.requests
    assert b"127.0.0.1:" + port not in told + b"".join(wire.answers)
    assert not [path for path, file in static_files.static_files().items() if b"127.0.0.1" in file.plain]


DIGESTS = {
    "core.event_log": "pseudonyms of accounts",
    "identity.accounts": "of tokens",
    "identity.login": "state, nonce and verifier of a sign-in",
    "identity.pseudonyms": "of subjects, with a pepper",
    "identity.sessions": "of session secrets and used states",
    "jobs.services": "of the list of places that people agree to",
    "jobs.create": "ids from idempotency keys",
    "web.pages.static_files": "of static files",
    "web.pages.privacy_policy": "of the policy",
    "http.rate_limit": "slots of networks",
    "privacy.canary": "of canaries, to look for them",
    "tiers.space.transfer": "guards one transfer",
}
"""Where the router digests anything, and what of; nowhere is it audio that stays."""


def test_p18_nothing_in_the_router_digests_or_listens_to_music() -> None:
    found = {}
    for path in ROUTER.rglob("*.py"):
        module = ".".join(path.relative_to(ROUTER).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                found[module] = found.get(module, set()) | {name.split(".")[0] for name in names}
    digesting = {module for module, names in found.items() if names & {"hashlib", "xxhash", "blake3", "zlib"}}
    assert digesting == set(DIGESTS)
    listening = {"numpy", "scipy", "torch", "soundfile", "librosa", "chromaprint", "acoustid", "whisper", "av"}
    assert not [module for module, names in found.items() if names & listening]


async def test_p38_looking_around_writes_no_record(tmp_path: Path) -> None:
    async with served(tmp_path) as running:
        await running.http.get("/v1/options")
        before = _rows(running.services.settings)
        for path in ("/", "/docs", "/privacy", "/privacy.json", "/v1/options", "/openapi.json", "/errors/gone"):
            assert (await running.http.get(path)).status_code == 200
        assert _rows(running.services.settings) == before
        assert [job async for job in running.services.jobs.scan()] == []


def _rows(settings: RouterSettings) -> list[str]:
    import sqlite3
    from contextlib import closing

    rows: list[str] = []
    for path in (settings.ram_dir / "jobs.sqlite", settings.state_dir / "accounts.sqlite"):
        with closing(sqlite3.connect(path)) as db:
            rows += [line for line in db.iterdump() if line.startswith("INSERT")]
    return rows


ROUTES = {
    "/", "/docs", "/errors/{code}", "/openapi.json", "/privacy", "/privacy.json", "/static/{digest}/{path:path}",
    "/.well-known/security.txt", "/v1/options", "/v1/health", "/v1/jobs", "/v1/jobs/{job_id}",
    "/v1/jobs/{job_id}/audio",
    "/v1/jobs/{job_id}/outputs/{output_format}", "/v1/jobs/{job_id}/references/{number}", "/v1/uploads",
    "/v1/uploads/{job_id}", "/v1/account", "/v1/account/consent",
}  # fmt: skip
OF_SIGN_IN = re.compile(r"/account|/sign-(in|out)(/\w+)?|/v1/account/[\w/{}-]+")
ADMIN_ROUTES = {
    "/", "/openapi.json", "/static/{name}", "/livez", "/readyz", "/metrics", "/v1/status", "/v1/tiers",
    "/v1/backends/{name}/mode",
}  # fmt: skip


async def test_p40_there_is_no_way_to_bring_music_back_for_anybody(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        admin = make_admin(services)
    assert set(templates_of(admin.router)) == ADMIN_ROUTES
    app = make_app(RouterSettings(ram_check="warn"))
    paths = set(app.openapi()["paths"]) | {"/", "/docs", "/errors/{code}", "/openapi.json", "/privacy"}
    assert {path for path in paths if not OF_SIGN_IN.fullmatch(path)} <= ROUTES


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "action", "formaction", "data")]


async def test_p55_p31_p32_pages_link_to_nobody_else_and_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    links = _Links()
    async with served(tmp_path, contact="mailto:privacy@master.example") as running:
        for path in ("/", "/docs", "/privacy", "/errors/gone"):
            links.feed((await running.http.get(path)).text)
    assert len(links.found) > 20
    assert {link for link in links.found if not link.startswith("/")} <= {"#main", "mailto:privacy@master.example"}
    foreign = re.compile(rb"(?:https?:)?//(?!www\.w3\.org)[a-z0-9-]+\.[a-z]")
    for name, file in static_files.static_files().items():
        code = re.sub(rb"/\*.*?\*/|(?m:^\s*(//|\*).*$)", b"", file.plain, flags=re.DOTALL)
        assert foreign.search(code) is None, name


LABELS = {
    "tier",
    "backend",
    "kind",
    "outcome",
    "code",
    "state",
    "le",
    "version",
    "implementation",
    "major",
    "minor",
    "patchlevel",
}


async def test_p64_no_figure_for_operators_names_a_person_and_more_people_make_no_more_of_them(tmp_path: Path) -> None:
    async with services_in(tmp_path, [FakeBackend("a", [])]) as services:
        metrics = services.fleet.metrics
        for _ in range(3):
            metrics.job_ended("master", "mastered", 1.0)
        before = list(_series(metrics.page()))
        for number in range(50):
            metrics.job_ended("master", "mastered", float(number))
        after = list(_series(metrics.page()))
    assert {label for _, labels in after for label in labels} <= LABELS
    assert len(after) == len(before)


def _series(page: bytes) -> Iterator[tuple[str, frozenset[str]]]:
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            yield sample.name, frozenset(sample.labels)
