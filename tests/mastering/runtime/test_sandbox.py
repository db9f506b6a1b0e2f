"""Each layer of the sandbox alone, in a process of its own, against what it is for; and no layer, against nothing."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys

import pytest

from mastering.runtime.sandbox_check import ATTEMPTS

PRELUDE = """import json, os, sys
from mastering.runtime import sandbox, syscall_filter
from mastering.runtime.sandbox_check import refused_attempts
"""
LIMITS = {"have memory without end", "have processor time without end"}
FILES = {"read a file", "list a folder", "create a file", "run a program"}


def refused_after(layers: str) -> set[str]:
    """The attempts that are refused in a process that has set up `layers`."""
    script = f"{PRELUDE}{layers}\nos.write(1, json.dumps(refused_attempts()).encode())\nos._exit(0)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    return {name for name, held in json.loads(shown).items() if held}


def test_without_a_layer_nothing_is_refused() -> None:
    assert refused_after("") == set()


def test_landlock_alone_keeps_every_file_shut() -> None:
    assert refused_after("assert sandbox.forbid_files()") >= FILES


def test_the_call_filter_alone_refuses_everything() -> None:
    assert refused_after("assert syscall_filter.allow_decoding()") == {*ATTEMPTS} - LIMITS


def test_a_renderers_filter_alone_refuses_all_that_is_no_file() -> None:
    others = {*ATTEMPTS} - LIMITS - FILES | {"run a program"}
    assert refused_after("assert syscall_filter.forbid_other_processes()") == others
    with_daemons = "assert syscall_filter.forbid_other_processes(may_connect_locally=True)"
    assert refused_after(with_daemons) == others


def test_a_filter_holds_for_threads_that_run_already() -> None:
    script = f"""{PRELUDE}import threading
filtered, found = threading.Event(), []
def look():
    filtered.wait()
    found.extend(name for name, refused in refused_attempts().items() if refused)
other = threading.Thread(target=look)
other.start()
assert syscall_filter.forbid_other_processes()
filtered.set()
other.join()
os.write(1, json.dumps(found).encode())"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert {"start a process", "connect", "share memory"} <= set(json.loads(shown))


def test_a_machine_without_the_library_has_no_filter_and_says_so() -> None:
    script = f"""{PRELUDE}syscall_filter._libseccomp = None
assert not syscall_filter.allow_decoding()
assert not syscall_filter.forbid_other_processes()"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_limits_of_work_alone_bound_memory_and_processor_time() -> None:
    limits = "sandbox.limit_rendering(heap_bytes=sandbox.allocated_bytes() + (64 << 20), cpu_s=5, is_final=True)"
    assert refused_after(limits) == LIMITS


def test_a_network_namespace_alone_has_nowhere_to_connect_to() -> None:
    assert "connect" in refused_after("assert sandbox.leave_network()")


def test_a_process_without_root_has_the_user_nobody() -> None:
    script = f"{PRELUDE}assert sandbox.drop_root()\nos.write(1, str(os.geteuid()).encode())"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert int(shown) != 0


def test_who_is_kept_to_some_files_reads_those_and_writes_none() -> None:
    kept = "from pathlib import Path; assert sandbox.keep_to([Path('/etc/passwd'), Path('/nowhere')])"
    assert refused_after(kept) & {*FILES} == FILES - {"read a file"}
    assert refused_after(kept.replace("passwd", "hostname")) & {*FILES} == FILES


@pytest.mark.parametrize(
    ("attempt", "ending"),
    [
        ("bytearray(400 << 20)", "MemoryError"),
        ("os.open('/dev/null', os.O_RDONLY)", "OSError"),
        ("os.write(os.memfd_create('x'), b'x')", "OSError"),
        ("os.fork()", "BlockingIOError"),
    ],
)
def test_limits_end_what_wants_too_much(attempt: str, ending: str) -> None:
    """As an ordinary user: root's processes are not counted."""
    script = f"""{PRELUDE}sandbox.drop_root()
sandbox.limit_decoding(address_bytes=300 << 20, heap_bytes=200 << 20, cpu_s=5)
try:
    {attempt}
except BaseException as error:
    os.write(1, type(error).__name__.encode())
os._exit(0)"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert shown.decode() == ending


@pytest.mark.parametrize(("before_it_spins", "limit_s"), [("", 1), ("sandbox.lift_early_cpu_limit()", 3)])
def test_a_process_that_spins_early_is_stopped_early(before_it_spins: str, limit_s: int) -> None:
    """In the midst of a call into a library too, where no handler of Python's is called."""
    script = f"""{PRELUDE}sandbox.limit_decoding(address_bytes=1 << 30, heap_bytes=1 << 30, cpu_s=3, early_cpu_s=1)
{before_it_spins}
sum(range(10 ** 12))"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == -(signal.SIGXCPU if limit_s == 1 else signal.SIGKILL)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert limit_s - 0.2 < spent_s < limit_s + 0.8


def test_a_process_that_spins_is_stopped_by_its_processor_time() -> None:
    script = f"{PRELUDE}sandbox.limit_decoding(address_bytes=1 << 30, heap_bytes=1 << 30, cpu_s=1)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert ended.returncode < 0
