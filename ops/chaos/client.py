"""Who sends a song: makes a job, uploads, waits, fetches the master twice, looks at it, deletes. Gives up late.

What fails for want of a router is tried again; an upload goes on where it broke off. Beside a twin, which sends the
same song under the same Idempotency-Key at the same time, there still must be one job.
"""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from ops.chaos import songs
from ops.chaos.schedule import PlannedJob

JOB_LIMIT_S = 180.0
"""After its acceptance a job must have come to its end in this time."""
ACCEPT_LIMIT_S = 90.0
"""So long a client tries to have a song accepted."""
FETCH_LIMIT_S = 60.0
"""So long a client tries to fetch what is said to be done: a master is promised for much longer."""
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_OVER = frozenset({"mastered", "delivered", "failed", "cancelled", "expired", "wiped"})
_DONE = frozenset({"mastered", "delivered"})


@dataclass
class JobHistory:
    """What a client saw of its job. Times are of `time.monotonic`."""

    plan: PlannedJob
    began_s: float
    accepted_s: float | None = None
    """When the router had said that it has the song."""
    ended_s: float | None = None
    """When the client saw the end: the master fetched, or a final state."""
    state: str = ""
    """The last one that the client saw."""
    code: str = ""
    """Of the error with which it ended."""
    attempts: list[str] = field(default_factory=list)
    """What its view said of each attempt in the end: tier, outcome, detail."""
    refusals: list[str] = field(default_factory=list)
    """Codes of answers after which the client tried again."""
    ids: set[str] = field(default_factory=set)
    """Ids that the router gave for the one Idempotency-Key."""
    master: str = ""
    """`sound`, or what was wrong with it."""
    has_two_masters: bool = False

    @property
    def is_done(self) -> bool:
        return self.state in _DONE

    @property
    def is_over(self) -> bool:
        return self.state in _OVER


class _Gone(Exception):
    """The job is not there any more, or the run is being stopped."""


_TLS = ssl.create_default_context()
"""One for all clients: reading the machine's certificates takes 30 ms of a core."""


def send(router: str, token: str, plan: PlannedJob, stop: threading.Event) -> JobHistory:
    """Go through with a job, and return what was seen. Takes some minutes at the most, less once `stop` is set."""
    history = JobHistory(plan, time.monotonic())
    audio = songs.honest_song(plan.song) if plan.song is not None else songs.HOSTILE[plan.hostile or ""]()
    history.began_s = time.monotonic()
    with _http(router, f"Bearer {token}") as http:
        client = _Client(http, history, audio, stop)
        try:
            client.run()
        except _Gone:
            history.state = history.state if history.is_over else "gone"
        history.ended_s = history.ended_s or time.monotonic()
    return history


def _http(router: str, authorization: str) -> httpx.Client:
    headers, timeout = {"authorization": authorization}, httpx.Timeout(20, connect=2)
    return httpx.Client(base_url=router, headers=headers, timeout=timeout, trust_env=False, verify=_TLS)


class _Client:
    def __init__(self, http: httpx.Client, history: JobHistory, audio: bytes, stop: threading.Event) -> None:
        self._http, self._history, self._audio, self._stop = http, history, audio, stop
        self._tries = 0

    def run(self) -> None:
        history, plan = self._history, self._history.plan
        twins = [threading.Thread(target=self._twin, daemon=True)] if plan.has_twin else []
        for twin in twins:
            twin.start()
        job = self._accepted()
        for twin in twins:
            twin.join(ACCEPT_LIMIT_S)
        if job is None:
            return
        history.accepted_s = history.accepted_s or time.monotonic()
        job = self._until_over(job)
        if history.is_done:
            self._fetch(job)
        history.ended_s = time.monotonic()
        self._delete(job["id"])

    def _twin(self) -> None:
        """The same once more, by a connection of its own, up to the upload."""
        history = JobHistory(self._history.plan, time.monotonic())
        with _http(str(self._http.base_url), self._http.headers["authorization"]) as http, suppress(_Gone):
            _Client(http, history, self._audio, self._stop)._accepted()
        self._history.ids |= history.ids

    def _accepted(self) -> dict[str, Any] | None:
        """Make the job and upload its song until the router has it; None where it ended before."""
        give_up_s = time.monotonic() + ACCEPT_LIMIT_S
        while time.monotonic() < give_up_s:
            job = self._created(give_up_s)
            if job is None:
                return None
            job = self._uploaded(job, give_up_s)
            if job is not None and self._was_full(job):
                self._tries += 1  # the disk was full: nothing was accepted, and the song is sent anew
                self._delete(job["id"])
                continue
            return job
        self._history.state = "refused"
        return None

    def _was_full(self, job: dict[str, Any]) -> bool:
        if job["state"] == "failed" and (job["error"] or {}).get("code") == "spool_full":
            self._history.refusals.append("spool_full")
            return True
        return False

    def _created(self, give_up_s: float) -> dict[str, Any] | None:
        plan = self._history.plan
        asked = {"size_bytes": len(self._audio), "managed_only": plan.managed_only}
        key = f"chaos-{plan.number}-{self._tries}"
        while time.monotonic() < give_up_s:
            answer = self._ask("POST", "/v1/jobs", json=asked, headers={"idempotency-key": key})
            if answer is not None and answer.status_code == 201:
                job: dict[str, Any] = answer.json()
                if self._tries == 0:
                    self._history.ids.add(job["id"])
                return job
            if answer is not None and answer.status_code < 500 and answer.status_code != 429:
                self._end(answer)
                return None
        self._history.state = "refused"
        return None

    def _uploaded(self, job: dict[str, Any], give_up_s: float) -> dict[str, Any] | None:
        """Send the song until the job has it, or has ended. None where it was not to be had in time."""
        address, offset = f"/v1/jobs/{job['id']}/audio", 0
        while job["state"] == "received" and time.monotonic() < give_up_s:
            headers = {"upload-offset": str(offset)} if offset else {}
            answer = self._ask("PUT", address, content=self._audio[offset:], headers=headers)
            if answer is not None and answer.status_code == 202:
                job = answer.json()
                continue
            job = self._shown(job["id"], give_up_s)
            offset = job["upload"]["offset_bytes"]
        if job["state"] == "received":
            self._history.state = "refused"
            return None
        if not self._was_full(job):
            self._history.accepted_s = self._history.accepted_s or time.monotonic()
        return job

    def _until_over(self, job: dict[str, Any]) -> dict[str, Any]:
        give_up_s = time.monotonic() + JOB_LIMIT_S
        while job["state"] not in _OVER and time.monotonic() < give_up_s:
            answer = self._ask("GET", f"/v1/jobs/{job['id']}", headers={"prefer": "wait=5"})
            if answer is not None and answer.status_code == 200:
                job = answer.json()
            elif answer is not None and answer.status_code in (404, 410):
                raise _Gone
        self._history.state = job["state"]
        self._history.code = str((job["error"] or {}).get("code", ""))
        self._history.attempts = [f"{one['tier']} {one['outcome']} {one['detail']}".strip() for one in job["attempts"]]
        return job

    def _shown(self, job_id: str, give_up_s: float) -> dict[str, Any]:
        while time.monotonic() < give_up_s:
            answer = self._ask("GET", f"/v1/jobs/{job_id}")
            if answer is not None and answer.status_code == 200:
                return dict(answer.json())
            if answer is not None and answer.status_code in (404, 410):
                break
        raise _Gone

    def _fetch(self, job: dict[str, Any]) -> None:
        """Fetch the master twice and compare; look at it as its song's master."""
        first, second = (self._master(job["id"]) for _ in range(2))
        history, song = self._history, self._history.plan.song
        if first is None or first.status_code != httpx.codes.OK:
            history.master = "it could not be fetched"
            return
        # On a full disk what was fetched goes first (P74): the second fetch may find it gone, as its owner is told.
        if second is None or second.status_code not in (httpx.codes.OK, httpx.codes.GONE):
            history.master = "it could not be fetched again"
            return
        history.has_two_masters = second.status_code == httpx.codes.OK and first.content != second.content
        history.master = (song and songs.why_not_its_master(song, first.content)) or "sound"

    def _master(self, job_id: str) -> httpx.Response | None:
        """The master, or the answer that it is gone; None where neither came in time."""
        give_up_s = time.monotonic() + FETCH_LIMIT_S
        while time.monotonic() < give_up_s:
            answer = self._ask("GET", f"/v1/jobs/{job_id}/outputs/wav24")
            if answer is not None and answer.status_code in (httpx.codes.OK, httpx.codes.GONE):
                return answer
        return None

    def _delete(self, job_id: str) -> None:
        for _ in range(50):
            answer = self._ask("DELETE", f"/v1/jobs/{job_id}")
            if answer is not None and answer.status_code in (200, 404):
                return

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """One request; None, after a pause, where no answer came. After a refusal for now it waits as it was told."""
        if self._stop.is_set():
            raise _Gone
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TransportError:
            time.sleep(_PAUSE_S)
            return None
        if answer.status_code in (429, 503, 507) or answer.status_code >= 500:
            self._history.refusals.append(_code_in(answer))
            after = answer.headers.get("retry-after", "")
            time.sleep(min(float(after) if after.isdecimal() else _PAUSE_S, _LONGEST_PAUSE_S))
        elif answer.status_code not in (200, 201, 202):
            time.sleep(_PAUSE_S)
        return answer

    def _end(self, answer: httpx.Response) -> None:
        self._history.state, self._history.code = "failed", _code_in(answer)


def _code_in(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
