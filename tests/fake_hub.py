"""A fake Hugging Face Hub: an HTTP server on loopback with the routes that this project uses, which records requests.

    with fake_hub() as hub:
        hub.spaces["owner/name"] = FakeSpace(stage="SLEEPING", host=space.url)
        ...HF_ENDPOINT=hub.url...
        assert hub.requests[-1].path == "/api/spaces/owner/name/runtime"

Of uploads it knows commits with the files inline, which the library uses for small text files.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

TOKEN = "hf_of_the_owner"
_SPACE = re.compile(r"/api/spaces/([\w.-]+/[\w.-]+)(/.*)?")


class HubRequest(NamedTuple):
    """One request, its body parsed."""

    method: str
    path: str
    body: Any


@dataclass
class FakeSpace:
    """A Space as the Hub has it; the defaults are those of a new one that runs."""

    stage: str = "RUNNING"
    host: str = "http://127.0.0.1:9"
    hardware: str = "cpu-basic"
    private: bool = True
    sdk: str = "gradio"
    files: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    sleep_s: int | None = None


class FakeHub:
    """Spaces by `owner/name`, the quota of TOKEN's owner, and the requests that came."""

    def __init__(self) -> None:
        self.url = ""
        self.spaces: dict[str, FakeSpace] = {}
        self.requests: list[HubRequest] = []
        self.quota: dict[str, Any] = {"base": 1500, "current": 1200.5, "resetsAt": None, "overquotaUsed": 0}
        self.failing: int | None = None
        """The status of every response, where it is to fail."""
        self.failing_next: list[int] = []
        """Answer the next requests with these statuses, one each."""

    def answer(self, method: str, path: str, token: str, body: Any) -> tuple[int, Any]:
        path = path.partition("?")[0]
        self.requests.append(HubRequest(method, path, body))
        if self.failing is not None or self.failing_next:
            return self.failing_next.pop(0) if self.failing_next else self.failing or 500, {"error": "as told"}
        if token not in ("", f"Bearer {TOKEN}"):
            return 401, {"error": "Invalid username or password."}
        if path == "/api/whoami-v2":
            return (200, {"name": "owner", "type": "user", "orgs": []}) if token else (401, {"error": "no token"})
        if path == "/api/spaces/zero-gpu/quota":
            return (200, self.quota) if token else (401, {"error": "no token"})
        if path == "/api/repos/create":
            return self._create(body, token)
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if (found := _SPACE.fullmatch(path)) is not None:
            return self._space(method, found[1], found[2] or "", token, body)
        return 404, {"error": "no such address"}

    def _create(self, body: Any, token: str) -> tuple[int, Any]:
        if not token:
            return 401, {"error": "no token"}
        name = f"{body.get('organization') or 'owner'}/{body['name']}"
        if name in self.spaces:
            return 409, {"error": "You already created this space repo", "url": f"{self.url}/spaces/{name}"}
        self.spaces[name] = FakeSpace(private=bool(body.get("private")), sdk=body.get("sdk", ""))
        return 200, {"url": f"{self.url}/spaces/{name}", "name": name}

    def _space(self, method: str, name: str, rest: str, token: str, body: Any) -> tuple[int, Any]:
        space = self.spaces.get(name)
        if space is None or (space.private and not token):
            return 404, {"error": "Repository not found"}
        runtime = {
            "stage": space.stage,
            "hardware": {"current": space.hardware, "requested": space.hardware},
            "gcTimeout": space.sleep_s,
        }
        match method, rest:
            case "GET", "/runtime":
                return 200, runtime
            case "POST", "/restart":
                space.stage = "APP_STARTING"
                return 200, {**runtime, "stage": space.stage}
            case "POST", "/hardware":
                space.hardware = body["flavor"]
                return 200, runtime
            case "POST", "/sleeptime":
                space.sleep_s = body["seconds"]
                return 200, runtime
            case "POST", "/secrets":
                space.secrets[body["key"]] = body["value"]
                return 200, None
            case "POST", "/variables":
                space.variables[body["key"]] = body["value"]
                return 200, {key: {"value": value} for key, value in space.variables.items()}
            case "POST", preupload if preupload.startswith("/preupload/"):
                mode = {"uploadMode": "regular", "shouldIgnore": False}
                return 200, {"files": [{"path": one["path"], **mode} for one in body["files"]]}
            case "POST", commit if commit.startswith("/commit/"):
                return self._commit(name, space, body)
            case "PUT", "/settings":
                space.private = body.get("visibility", "private" if body.get("private") else "public") == "private"
                return 200, {"private": space.private}
            case "GET", tree if tree.startswith("/tree/"):
                files = [
                    {"type": "file", "path": path, "size": len(b), "oid": "0" * 40} for path, b in space.files.items()
                ]
                return 200, files
            case "GET", _:
                siblings = [{"rfilename": path} for path in space.files]
                info = {"id": name, "private": space.private, "host": space.host, "runtime": runtime, "sha": "0" * 40}
                return 200, {**info, "siblings": siblings, "tags": [], "likes": 0, "subdomain": name.replace("/", "-")}
        return 404, {"error": "no such address"}

    def _commit(self, name: str, space: FakeSpace, lines: Any) -> tuple[int, Any]:
        for line in lines:
            match line["key"]:
                case "file":
                    space.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                case "deletedFile":
                    space.files.pop(line["value"]["path"], None)
        return 200, {"commitUrl": f"{self.url}/spaces/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            if "ndjson" in self.headers.get("content-type", ""):
                body: Any = [json.loads(line) for line in raw.splitlines() if line]
            else:
                body = json.loads(raw) if raw else None
            status, response = hub.answer(self.command, self.path, self.headers.get("authorization", ""), body)
            answer = json.dumps(response).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            if status == 404:
                self.send_header("x-error-code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
