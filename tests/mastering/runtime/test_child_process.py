"""Children as the one launcher starts them: what they know of this process, what they hold, and when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mastering.runtime import child_process, exec_shim
from tests.processes import is_alive

PARENT = """
import sys, time
from mastering.runtime import child_process
child = child_process.start_blocking(["sleep", "600"], child_process.environment())
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether it ends; five seconds at most."""
    for _ in range(500):
        if not is_alive(pid):
            return True
        time.sleep(0.01)
    return False


async def out_of(command: tuple[str, ...] | list[str], *, descriptors: tuple[int, ...] = ()) -> str:
    """What the command writes to its standard output."""
    child = await child_process.start(command, child_process.environment(), descriptors, stdout=child_process.PIPE)
    said, _ = await child.communicate()
    return said.decode()


async def test_a_child_knows_only_the_variables_on_its_callers_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A_SECRET", "WANTED", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "7")
    kept = child_process.environment(["WANTED"], child_process.RENDER_PREFIXES, {"GIVEN": "8"})
    child = await child_process.start(["env"], kept, stdout=child_process.PIPE)
    said, _ = await child.communicate()
    seen = dict(line.split("=", 1) for line in said.decode().splitlines())
    assert (seen["WANTED"], seen["CUDA_VISIBLE_DEVICES"], seen["GIVEN"]) == ("7", "7", "8")
    every_program = {"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH"}
    steered = {name for name in os.environ if name.startswith(child_process.RENDER_PREFIXES)}
    assert set(seen) - {"WANTED", "GIVEN"} <= every_program | steered


async def test_a_child_holds_the_descriptors_that_it_is_given_and_no_others(tmp_path: Path) -> None:
    given, kept = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(kept, True)
    script = f"import os; print([fd for fd in ({given}, {kept}) if os.path.exists(f'/proc/self/fd/{{fd}}')])"
    try:
        held = await out_of([sys.executable, "-c", script], descriptors=(given,))
    finally:
        os.close(given)
        os.close(kept)
    assert held == f"[{given}]\n"


async def test_a_child_imports_nothing_from_the_folder_that_it_runs_in(tmp_path: Path) -> None:
    (tmp_path / "mastering").mkdir()
    (tmp_path / "mastering" / "__init__.py").write_text("raise SystemExit(3)")
    command = child_process.python("mastering.worker", "--help")
    child = await child_process.start(command, child_process.environment(["PYTHONPATH"]), cwd=tmp_path)
    assert await child.wait() == 0


async def test_a_program_that_is_not_there_shows_by_its_exit_status() -> None:
    child = await child_process.start(["no-such-program"], child_process.environment())
    assert await child.wait() == 127


def test_a_child_is_killed_with_its_parent_however_that_ends() -> None:
    for kill in (signal.SIGKILL, signal.SIGTERM):
        parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        with parent.stdout:
            child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.send_signal(kill)
        parent.wait()
        assert gone(child)


def test_a_child_whose_parent_has_ended_already_never_runs_its_program(tmp_path: Path) -> None:
    """The kernel tells of ends to come alone, so the pid of the parent is compared after it has been asked."""
    made = tmp_path / "made"
    foreign = next(pid for pid in range(2, 10_000) if pid not in (os.getpid(), os.getppid()))
    shim = subprocess.run([sys.executable, "-I", "-S", exec_shim.__file__, str(foreign), "touch", str(made)])
    assert shim.returncode == 1
    assert not made.exists()
