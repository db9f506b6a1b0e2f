"""P10, P66: while a whole job runs, router, worker and probe open no file for writing outside their folders."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api import Api
from tests.songs import demo
from tests.stack import stack
from tests.tracing import traced

_OPENED = re.compile(r'open(?:at2?|)\([^"]*"(?P<path>[^"]*)", (?P<flags>[^,)]*)[^=]*= (?P<result>-?\d+)')
_MADE = re.compile(r"(?:creat|rename(?:at2?)?|link(?:at)?|symlink(?:at)?)\(.*= 0$")
_CALLS = "trace=open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"


def opened_for_writing(trace: Path) -> Iterator[str]:
    for line in trace.read_text(errors="replace").splitlines():
        match = _OPENED.search(line)
        if match and int(match["result"]) >= 0 and re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE", match["flags"]):
            yield match["path"]


def moved(trace: Path) -> Iterator[str]:
    """Every path that was renamed, linked, or a new name of one."""
    for line in trace.read_text(errors="replace").splitlines():
        if _MADE.search(line):
            yield from re.findall(r'"([^"]*)"', line)


@pytest.mark.timeout(170)
def test_a_whole_job_writes_to_the_spool_the_key_folder_and_the_account_store_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shutil.which("strace"), "strace is missing: ops/test_prerequisites.sh installs it"
    traces = tmp_path / "traces"
    traces.mkdir()
    song = demo(tmp_path / "song.wav", 5)
    with traced(traces, monkeypatch, _CALLS), stack(tmp_path) as running, Api(running.url) as api:
        job = api.mastered(api.send(song, outputs=["wav24", "flac", "mp3"])["id"])
        assert api.fetch(job)[:4] == b"RIFF"
        api.http.delete(f"/v1/jobs/{job['id']}")
        ram, spool, state = running.ram_dir, running.spool_dir, running.folder / "state"
    locks = [f"{folder.parent}/.{folder.name}.lock" for folder in (ram, spool)]
    allowed = (*locks, f"{ram}/", f"{spool}/", f"{state}/", "/dev/", "/proc/self/")
    written = {path for trace in traces.iterdir() for path in opened_for_writing(trace)}
    assert any(path.startswith(str(spool)) for path in written), "the trace saw the spool being written"
    assert {path for path in written if not path.startswith(allowed)} == set()
    renamed = {path for trace in traces.iterdir() for path in moved(trace)}
    assert {path for path in renamed if not path.startswith((f"{ram}/", f"{state}/"))} == set()


def test_the_trace_would_show_a_file_written_elsewhere(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    script = f"open({str(tmp_path / 'elsewhere')!r}, 'wb').write(b'x')"
    subprocess.run(["strace", "-f", "-qq", "-e", _CALLS, "-o", str(trace), "python3", "-c", script], check=True)
    assert str(tmp_path / "elsewhere") in set(opened_for_writing(trace))
