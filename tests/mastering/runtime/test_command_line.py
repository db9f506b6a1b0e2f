"""How a command ends by a signal, and where nobody takes what it prints: with one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import soundfile

from mastering.runtime.command_line import EndedBySignal, check_ended, ended_by_signals

PRESETS = (sys.executable, "-c", "import sys; from mastering.cli import main; sys.argv[0] = 'mastering'; main()")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_block_by_its_finally_and_further_ones_do_not_interrupt_that(number: int) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            for each in before:
                os.kill(os.getpid(), each)
            cleaned.append(number)

    with pytest.raises(EndedBySignal) as ended, ended_by_signals(*before):
        work()
    assert (ended.value.exit_code, cleaned) == (128 + number, [number])
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_signal_that_comes_while_libsndfile_calls_back_is_heeded_by_the_next_look() -> None:
    class Source(io.BytesIO):
        def readinto(self, buffer: Any, /) -> int:
            if not self.tell():
                os.kill(os.getpid(), signal.SIGTERM)
            return super().readinto(buffer)

    source = Source()
    soundfile.write(source, np.zeros(100), 44_100, format="WAV")
    source.seek(0)
    with ended_by_signals(signal.SIGTERM):
        assert soundfile.info(source).frames == 100, "what is raised in the callback is printed and lost"
        with pytest.raises(EndedBySignal):
            check_ended()
    check_ended()


def test_a_signal_that_comes_while_garbage_is_collected_is_heeded_by_the_next_look(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Garbage:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with ended_by_signals(signal.SIGTERM):
        del (garbage := [Garbage()])[0]
        assert garbage == []
        with pytest.raises(EndedBySignal):
            check_ended()
    assert capfd.readouterr() == ("", "")


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals(signal.SIGHUP):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("arguments", [("presets",), ("presets", "--json"), ("--help",)], ids=" ".join)
def test_an_output_whose_reader_is_gone_is_one_line(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run([*PRESETS, *arguments], stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "mastering: cannot write to standard output: broken pipe.\n")


@pytest.mark.parametrize(
    ("shell", "cause"),
    [('ulimit -f 0; exec "$@" > full', "file too large"), ('exec "$@" >&-', "bad file descriptor")],
    ids=["full", "closed"],
)
def test_an_output_that_is_full_or_closed_is_one_line(shell: str, cause: str, tmp_path: object) -> None:
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *PRESETS, "presets"], cwd=str(tmp_path), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, f"mastering: cannot write to standard output: {cause}.\n")
