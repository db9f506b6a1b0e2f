"""P48: while a whole job runs, no process of the stack asks for a connection to anybody but the worker."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.api import Api
from tests.songs import demo
from tests.stack import stack
from tests.tracing import traced

_INET = re.compile(r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?inet_(?:addr|pton)\((?:AF_INET6, )?\"([^\"]+)\"")


@pytest.mark.timeout(170)
def test_p48_no_connection_goes_anywhere_but_to_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("strace"), "strace is missing: ops/test_prerequisites.sh installs it"
    song = demo(tmp_path / "song.wav", 2)
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    with traced(tmp_path, monkeypatch, calls), stack(tmp_path) as running, Api(running.url) as api:
        api.mastered(api.send(song)["id"])
        port = running.workers[0].url.rpartition(":")[2]
    asked = {
        (address, number)
        for trace in tmp_path.glob("*.trace")
        for line in trace.read_text(errors="replace").splitlines()
        for number, address in _INET.findall(line)
    }
    assert asked == {("127.0.0.1", port)}
