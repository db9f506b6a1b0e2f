"""Jobs over HTTP: created, read, waited for, followed by events, cancelled."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from mastering.contract import OutputFormat
from router.core import clock
from router.tiers.fake import FakeBackend, Hang
from router.tiers.fleet.modes import Mode
from router.tiers.port import Accepted, BackendHealth
from router.web.api import events
from tests.probes import until
from tests.served import Served, served
from tests.services import SONG, eventually, mastering


def scripted_backend(*scripts: object) -> list[FakeBackend]:
    return [FakeBackend("a", list(scripts) or [mastering()])]  # type: ignore[arg-type]


async def test_options_say_what_can_be_asked_for_and_within_which_limits(tmp_path: Path) -> None:
    async with served(tmp_path, scripted_backend(), max_bytes=1000) as router:
        options = (await router.http.get("/v1/options")).json()
        assert {"streaming"} <= set(options["targets"])
        assert {"neutral"} <= set(options["styles"])
        assert set(options["outputs"]) == {kind.value for kind in OutputFormat}
        assert options["limits"]["max_bytes"] == 1000
        assert [tier["name"] for tier in options["tiers"]] == ["managed"]
        assert options["account"]["kind"] == "guest"


async def test_a_new_job_waits_for_its_song(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        response = await router.http.post("/v1/jobs", json={"target": "streaming", "outputs": ["flac", "mp3", "flac"]})
        job = response.json()
        assert response.headers["location"] == f"/v1/jobs/{job['id']}"
        assert (job["state"], job["upload"]) == ("received", {"offset_bytes": 0, "size_bytes": None})
        assert job["settings"]["outputs"] == ["flac", "mp3"]
        assert 0 < job["expires_in_s"] <= 3600
        assert (await router.http.get(response.headers["location"])).json()["id"] == job["id"]


async def test_a_job_can_be_made_without_a_body(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        assert (await router.http.post("/v1/jobs")).status_code == 201


@pytest.mark.parametrize(
    "wanted",
    [
        {"target": "the moon"},
        {"style": "no such style"},
        {"amount_percent": 101},
        {"amount_percent": "NaN"},
        {"loudness_lufs": 0},
        {"rate_hz": 1},
        {"outputs": []},
        {"outputs": ["exe"]},
        {"size_bytes": -1},
        {"unknown": 1},
        ["streaming"],
    ],
)
async def test_settings_that_can_not_be_are_refused_in_a_sentence(tmp_path: Path, wanted: object) -> None:
    async with served(tmp_path) as router:
        response = await router.http.post("/v1/jobs", json=wanted)
        assert (response.status_code, response.json()["code"]) == (422, "bad_settings")
        assert response.json()["detail"].endswith(".")
        assert [job async for job in router.services.jobs.scan()] == []


async def test_a_size_over_the_limit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with served(tmp_path, max_bytes=1000) as router:
        response = await router.http.post("/v1/jobs", json={"size_bytes": 1001})
        problem = response.json()
        assert (response.status_code, problem["code"]) == (413, "too_large")
        assert (problem["size_bytes"], problem["allowed_bytes"]) == (1001, 1000)
        assert (await router.http.post("/v1/jobs", json={"size_bytes": 1000})).status_code == 201


async def test_the_same_idempotency_key_gives_the_same_job_and_never_another_ones(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        key = {"idempotency-key": "k"}
        first = await router.http.post("/v1/jobs", json={"amount_percent": 10}, headers=key)
        again = await router.http.post("/v1/jobs", json={"amount_percent": 10}, headers=key)
        other = await router.http.post("/v1/jobs", json={"amount_percent": 10}, headers={"idempotency-key": "l"})
        conflict = await router.http.post("/v1/jobs", json={"amount_percent": 11}, headers=key)
        assert first.json()["id"] == again.json()["id"] != other.json()["id"]
        assert (conflict.status_code, conflict.json()["code"]) == (422, "idempotency_conflict")
        assert first.json()["id"] != "k"


@pytest.mark.parametrize(("first", "again", "status"), [(10, 10, 201), (10, None, 201), (10, 11, 422), (None, 11, 422)])
async def test_the_same_idempotency_key_with_another_size_is_another_request(
    tmp_path: Path, first: int | None, again: int | None, status: int
) -> None:
    async with served(tmp_path) as router:
        answers = [
            await router.http.post("/v1/jobs", json={"size_bytes": size}, headers={"idempotency-key": "k"})
            for size in (first, again)
        ]
        assert [answer.status_code for answer in answers] == [201, status]


async def test_ones_own_jobs_are_listed_a_page_at_a_time_the_newest_first(tmp_path: Path) -> None:
    async with served(tmp_path, max_queued_per_account=30) as router:
        made = [(await router.create())["id"] for _ in range(5)]
        foreign, revision = await router.services.jobs.get(made.pop(2))
        await router.services.jobs.change(foreign.with_(account="somebody else"), revision)
        await router.http.delete(f"/v1/jobs/{made[0]}")
        first = (await router.http.get("/v1/jobs?limit=3")).json()
        second = (await router.http.get(first["next"])).json()
        assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
        assert second["next"] is None
        alone = (await router.http.get(f"/v1/jobs/{made[0]}")).json()
        assert {**alone, "expires_in_s": None} == {**second["jobs"][0], "expires_in_s": None}
        for wrong in ("limit=0", "limit=101", "limit=x", f"after={foreign.id}", "after=nobody"):
            answer = await router.http.get(f"/v1/jobs?{wrong}")
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), wrong


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b'{"style": "warm",}', "application/json", 422, ("not JSON", "at character 18")),
        (b'{"style": ', "application/json", 422, ("not JSON", "at character")),
        (b"{}", "application/x-www-form-urlencoded", 415, ("application/json", "curl --json")),
        (b"{}", "", 415, ("application/json", "curl --json")),
        (b"--x--", "multipart/form-data; boundary=x", 415, ("application/json",)),
        (b"[]", "application/json", 422, ("The body",)),
    ],
)
async def test_a_body_that_is_no_json_is_told_what_is_wrong_and_what_to_send(
    tmp_path: Path, body: bytes, content_type: str, status: int, words: tuple[str, ...]
) -> None:
    async with served(tmp_path) as router:
        headers = {"content-type": content_type} if content_type else {}
        answer = await router.http.post("/v1/jobs", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]


async def test_an_account_may_have_so_many_jobs_at_once_and_no_more(tmp_path: Path) -> None:
    async with served(tmp_path, max_queued_per_account=2) as router:
        first, _ = [await router.create() for _ in range(2)]
        refused = await router.http.post("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert int(refused.headers["retry-after"]) > 0
        await router.http.delete(f"/v1/jobs/{first['id']}")
        assert (await router.http.post("/v1/jobs")).status_code == 201


async def test_a_job_of_another_account_is_the_same_404_as_one_that_never_was(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        found, revision = await router.services.jobs.get(job["id"])
        await router.services.jobs.change(found.with_(account="somebody else"), revision)
        answers = [await router.http.get(f"/v1/jobs/{name}") for name in (job["id"], "A" * 22)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json() == answers[1].json()
        for method, path in (("DELETE", ""), ("PUT", "/audio"), ("HEAD", "/audio"), ("GET", "/outputs/wav24")):
            assert (await router.http.request(method, f"/v1/jobs/{job['id']}{path}")).status_code == 404


async def test_the_etag_changes_with_the_job_and_saves_sending_it_again(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        address = f"/v1/jobs/{job['id']}"
        etag = (await router.http.get(address)).headers["etag"]
        same = await router.http.get(address, headers={"if-none-match": etag})
        assert (same.status_code, same.content) == (304, b"")
        await router.http.delete(address)
        changed = await router.http.get(address, headers={"if-none-match": etag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != etag


async def test_prefer_wait_answers_at_the_next_change_of_state(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        address = f"/v1/jobs/{job['id']}"
        waiting = asyncio.create_task(router.http.get(address, headers={"prefer": "respond-async, Wait = 20; x=1"}))
        async with asyncio.timeout(10):
            while not router.services.events._flags:  # type: ignore[attr-defined]  # noqa: ASYNC110 — bounded
                await asyncio.sleep(0.005)
        await router.http.delete(address)
        answer = await waiting
        assert answer.json()["state"] in ("ending", "cancelled")
        assert answer.headers["preference-applied"] == "wait=20"


async def test_prefer_wait_answers_unchanged_when_the_time_is_over_and_at_once_when_the_job_is(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        answer = await router.http.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=0"})
        assert answer.json()["state"] == "received"
        await router.http.delete(f"/v1/jobs/{job['id']}")
        assert (await router.over(job["id"]))["state"] == "cancelled"


async def test_a_job_that_is_forgotten_while_it_is_waited_for_is_a_404(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        waiting = asyncio.create_task(router.http.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=20"}))
        await until(lambda: router.app.state.streams._open.total() == 1)
        await router.services.jobs.forget(job["id"])
        await router.services.events.publish(job["id"])
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_an_account_holds_only_so_many_streams_and_waits_open_and_each_that_ends_makes_room(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, streams_per_account=2) as router:
        job = await router.create()
        address = f"/v1/jobs/{job['id']}"
        async with router.events(job["id"]) as one:
            await anext(one)
            waiting = asyncio.create_task(router.http.get(address, headers={"prefer": "wait=20"}))
            async with asyncio.timeout(10):
                while router.app.state.streams._open.total() < 2:  # noqa: ASYNC110 — bounded
                    await asyncio.sleep(0.005)
            for headers in ({"accept": "text/event-stream"}, {"prefer": "wait=1"}):
                refused = await router.http.get(address, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
                assert (refused.json()["allowed"], refused.headers["retry-after"]) == (2, "5")
            assert (await router.http.get(address)).status_code == 200
            await router.http.delete(address)
            assert (await waiting).status_code == 200
        async with asyncio.timeout(10):
            while router.app.state.streams._open:  # noqa: ASYNC110 — bounded
                await asyncio.sleep(0.005)
        assert (await router.http.get(address, headers={"prefer": "wait=0"})).status_code == 200


async def test_what_a_caller_prefers_is_read_in_any_case_on_any_line_and_by_weight(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        address = f"/v1/jobs/{job['id']}"
        await router.http.delete(address)
        for lines in (
            [("Prefer", "respond-async"), ("Prefer", "WAIT=7")],
            [("prefer", 'handling="strict, wait=3", wait=7')],
        ):
            answer = await router.http.get(address, headers=lines)
            assert answer.headers["preference-applied"] == "wait=7"
        for accept, expected in (
            ("Text/Event-Stream", "text/event-stream"),
            ("text/event-stream;q=0, application/json", "application/json"),
            ("text/html;q=0.1, text/event-stream;q=0.2, application/json;q=0.9", "application/json"),
        ):
            answer = await router.http.get(address, headers={"accept": accept})
            assert answer.headers["content-type"].split(";")[0] == expected
        etag = (await router.http.get(address)).headers["etag"]
        named = [("if-none-match", '"another"'), ("if-none-match", etag)]
        assert (await router.http.get(address, headers=named)).status_code == 304


@pytest.mark.parametrize("prefer", ["wait=", "wait=-1", "wait=x", "wait=\xb2", "wait=" + "9" * 400, ",;=", "wait"])
async def test_a_preference_that_makes_no_sense_does_no_harm(tmp_path: Path, prefer: str) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        await router.http.delete(f"/v1/jobs/{job['id']}")
        answer = await router.http.get(f"/v1/jobs/{job['id']}", headers={"prefer": prefer.encode("latin-1")})
        assert answer.status_code == 200


async def test_events_tell_the_whole_way_to_the_master_and_end_there(tmp_path: Path) -> None:
    async with served(tmp_path, scripted_backend()) as router:
        job = await router.create()
        seen = []
        async with router.events(job["id"]) as stream:
            async for event_id, shown in stream:
                if not seen:
                    await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
                assert event_id == str(shown["revision"])
                seen.append(shown)
        states = [shown["state"] for shown in seen]
        assert (states[0], states[-1]) == ("received", "mastered")
        revisions = [shown["revision"] for shown in seen]
        assert revisions == sorted(set(revisions))
        last = seen[-1]
        assert last["outputs"][0]["url"] == f"/v1/jobs/{job['id']}/outputs/wav24"
        assert last["report"]["after"]["integrated_lufs"] == -14.0
        assert last["attempts"][0]["outcome"] == "done"
        assert last["receipt"]["input_key_destroyed_at"] is not None


async def test_who_comes_back_with_the_last_event_gets_only_what_is_new(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        async with router.events(job["id"]) as stream:
            last_id, _ = await anext(stream)
        async with router.events(job["id"], **{"last-event-id": last_id}) as stream:
            await router.http.delete(f"/v1/jobs/{job['id']}")
            next_id, shown = await anext(stream)
        assert next_id != last_id
        assert shown["state"] in ("ending", "cancelled")


async def test_a_quiet_stream_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    async with served(tmp_path) as router:
        job = await router.create()
        async with router.events(job["id"]) as stream:
            assert (await anext(stream))[0] == "1"
            assert (await anext(stream))[0] == "comment"


async def test_nobody_is_shown_the_end_of_a_job_before_its_keys_are_destroyed(tmp_path: Path) -> None:
    async with served(tmp_path, scripted_backend()) as router:
        job = await router.create()
        async with router.events(job["id"]) as stream:
            async for _, shown in stream:
                if shown["state"] == "received":
                    await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
                if shown["state"] in ("mastered", "failed", "cancelled"):
                    found, _ = await router.services.jobs.get(job["id"])
                    assert found.input is None
                    assert shown["receipt"]["input_key_destroyed_at"] is not None


async def test_deleting_gives_a_receipt_and_leaves_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, scripted_backend()) as router:
        job = await router.over((await router.send())["id"])
        response = await router.http.delete(f"/v1/jobs/{job['id']}")
        receipt = response.json()["receipt"]
        assert receipt["input_key_destroyed_at"] is not None
        assert receipt["outputs_key_destroyed_at"] is not None
        assert router.services.spool.usage().blobs == 0
        again = await router.http.delete(f"/v1/jobs/{job['id']}")
        assert (again.status_code, again.json()["receipt"]) == (200, receipt)
        shown = (await router.http.get(f"/v1/jobs/{job['id']}")).json()
        assert (shown["state"], shown["outputs"], shown["report"]) == ("wiped", [], None)


async def test_deleting_a_running_job_stops_it(tmp_path: Path) -> None:
    backends = scripted_backend([Accepted("scripted"), Hang()])
    async with served(tmp_path, backends) as router:
        job = await router.send()
        async with router.events(job["id"]) as stream:
            async for _, shown in stream:
                if shown["state"] == "running":
                    break
        await router.http.delete(f"/v1/jobs/{job['id']}")
        assert (await router.over(job["id"]))["state"] == "cancelled"
        assert router.services.spool.usage().blobs == 0
        assert await router.services.queue.depth() == 0


async def test_a_job_whose_time_is_over_can_still_be_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as router:
        job = await router.create(size_bytes=len(SONG))
        await _half_sent(router, job["id"])
        later = clock.now() + 56 * 60
        monkeypatch.setattr(clock, "now", lambda: later)
        assert (await router.http.get(f"/v1/jobs/{job['id']}")).status_code == 200
        assert (await router.http.head(f"/v1/jobs/{job['id']}/audio")).status_code == 410
        sent = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=b"x", headers={"upload-offset": "1"})
        assert sent.status_code in (409, 410)


async def _half_sent(router: Served, job_id: str) -> None:
    response = await router.http.put(f"/v1/jobs/{job_id}/audio", content=SONG[:100])
    assert (response.status_code, response.json()["upload"]["offset_bytes"]) == (202, 100)


async def test_one_song_after_another_waits_in_line_and_is_told_its_place(tmp_path: Path) -> None:
    backends = scripted_backend([Accepted("scripted"), Hang()])
    async with served(tmp_path, backends) as router:
        first = await router.send()
        async with router.events(first["id"]) as stream:
            async for _, shown in stream:
                if shown["state"] == "running":
                    break
        assert shown["progress"]["tier_title"] == "Managed workers"
        assert shown["progress"]["reason"].endswith(".")
        places = [(await router.send())["queue"]["position"] for _ in range(2)]
        assert places == [0, 1]


async def test_a_waiting_job_says_what_it_waits_for_by_the_state_of_that_moment(tmp_path: Path) -> None:
    worker = FakeBackend("a", [[Hang()]])
    worker.health = BackendHealth(True, "answers", device="cpu")
    async with served(tmp_path, [worker]) as router:
        fleet = router.services.fleet
        await fleet.probe_all()

        async def waits_for() -> str:
            return str((await router.http.get(f"/v1/jobs/{job['id']}")).json()["queue"]["reason"])

        member = fleet.member("a")
        assert member is not None
        job = await router.create()
        member.mode = Mode.DRAINING
        await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert await waits_for() == "No tier can take the job now (Managed CPU workers: draining)."
        member.mode = Mode.READY
        member.in_flight = 1
        assert (await waits_for()).startswith("Managed CPU workers will be done first: free in about ")
        worker.health = BackendHealth(False, "silent")
        await fleet.probe_all()
        assert await waits_for() == "Managed CPU workers will be tried first: no answer a moment ago."
        await fleet.probe_all()
        said = await waits_for()
        assert "Managed CPU workers: down" in said
        assert re.search(r"tried again in about \d+ s\.$", said)
        assert "busy" not in said


async def test_a_job_that_waits_for_its_account_says_so_while_a_worker_is_free(tmp_path: Path) -> None:
    worker = FakeBackend("a", [[Accepted("scripted"), Hang()]])
    worker.health = BackendHealth(True, "answers", slots=3)
    async with served(tmp_path, [worker], max_running_per_account=2) as router:
        jobs = [await router.send() for _ in range(3)]

        async def are_at_work() -> bool:
            shown = [(await router.http.get(f"/v1/jobs/{job['id']}")).json()["state"] for job in jobs]
            return shown == ["running", "running", "queued"]

        await eventually(are_at_work)
        shown = (await router.http.get(f"/v1/jobs/{jobs[2]['id']}")).json()
        assert shown["queue"]["reason"] == "It waits for one of yours to be done: 2 are at work, the most at once."


async def test_an_open_stream_tells_when_what_a_job_waits_for_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's record does not change meanwhile."""
    monkeypatch.setattr(events, "_QUEUE_LOOK_S", 0.05)
    async with served(tmp_path, [FakeBackend("a", [[Hang()]])]) as router:
        fleet = router.services.fleet
        await fleet.probe_all()
        job = await router.create()
        await fleet.set_mode("a", Mode.DRAINING)
        await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        async with router.events(job["id"]) as stream:
            _, first = await anext(stream)
            assert "draining" in first["queue"]["reason"]
            await fleet.set_mode("a", Mode.MAINTENANCE)
            async with asyncio.timeout(10):
                _, second = await anext(stream)
        assert "maintenance" in second["queue"]["reason"]
        assert second["revision"] == first["revision"]


@pytest.mark.parametrize(
    ("paces", "offered"), [({"master": frozenset({"quick", "fit"})}, True), ({"master": frozenset({"quick"})}, False)]
)
async def test_refined_is_offered_where_a_tier_has_said_that_it_can_and_refused_where_none_can(
    tmp_path: Path, paces: dict[str, frozenset[str]], offered: bool
) -> None:
    worker = FakeBackend("a", [[Hang()]])
    worker.health = BackendHealth(True, "answers", kinds={"master": {}}, paces=paces, device="cpu")
    async with served(tmp_path, [worker]) as router:
        await router.services.fleet.probe_all()
        shown = (await router.http.get("/v1/options")).json()["kinds"]["master"]["paces"]
        assert shown["quick"] == {"title": "Quick", "offered": True, "reason": ""}
        cure = "It needs torch: 'make setup-torch' on a worker's machine installs it; then start that anew."
        reason = "" if offered else f"Not offered now: none of the tiers that are set up can do it. {cure}"
        assert shown["fit"] == {"title": "Refined", "offered": offered, "reason": reason}
        answer = await router.http.post("/v1/jobs", json={"effort": "fit"})
        if offered:
            assert answer.status_code == 201
        else:
            assert (answer.status_code, answer.json()["code"]) == (503, "no_tier")
            assert "Managed CPU workers: can't do 'Refined'" in answer.json()["detail"]
            assert answer.json()["detail"].endswith("Ask for something else: nothing that is set up does this.")
        assert (await router.http.post("/v1/jobs", json={"effort": "quick"})).status_code == 201


async def test_refined_is_not_offered_by_a_tier_that_has_said_nothing_or_speaks_another_version(tmp_path: Path) -> None:
    silent, other = FakeBackend("a", []), FakeBackend("b", [])
    paces = {"master": frozenset({"quick", "fit"})}
    other.health = BackendHealth(True, "answers", paces=paces, engine_version="999.0.0")
    async with served(tmp_path, [silent, other]) as router:
        await router.services.fleet.probe_all()
        shown = (await router.http.get("/v1/options")).json()["kinds"]["master"]["paces"]
        assert (shown["quick"]["offered"], shown["fit"]["offered"]) == (True, False)
        assert "torch" not in shown["fit"]["reason"], "which may be there"
