"""What a render may write: reckoned before, counted while it writes, and bounded by the kernel."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mastering.contract import Fault, FaultCode, OutputFormat, Settings
from mastering.contract.kinds import MASTER
from mastering.worker.budget import Budget
from mastering.worker.work_bounds import check_output_size, read_header
from tests.mastering.worker_process import FAKE, request_body, running_worker
from tests.songs import demo

MIB = 1 << 20
LOSSLESS = (OutputFormat.WAV24, OutputFormat.WAV16, OutputFormat.WAV32F, OutputFormat.FLAC, OutputFormat.ALAC)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 4).read_bytes()


def test_ninety_minutes_at_192_khz_in_five_lossless_formats_are_some_thirty_gigabytes() -> None:
    samples = 90 * 60 * 192_000 * 2
    size = MASTER.size_bound_bytes(Settings(outputs=LOSSLESS), 90 * 60, 192_000, 2)
    assert samples * (3 + 2 + 4 + 3 + 3) < size < 1.01 * samples * (3 + 2 + 4 + 3 + 3)


def test_a_song_whose_masters_could_not_fit_is_refused_with_the_numbers(song: bytes) -> None:
    settings = Settings(outputs=LOSSLESS, rate_hz=192_000)
    with pytest.raises(Fault) as refused:
        check_output_size(read_header(io.BytesIO(song)), MASTER, settings, Budget(8 * MIB), None)
    needed = MASTER.size_bound_bytes(settings, 4, 192_000, 2)
    assert (refused.value.code, refused.value.numbers) == (
        FaultCode.TOO_LARGE,
        {"allowed_bytes": 8 * MIB, "needed_bytes": needed},
    )
    assert check_output_size(read_header(io.BytesIO(song)), MASTER, settings, Budget(needed), None) == needed


def test_a_song_longer_than_is_taken_here_is_refused(song: bytes) -> None:
    with pytest.raises(Fault) as refused:
        check_output_size(read_header(io.BytesIO(song)), MASTER, Settings(), Budget(1 << 30), 3.0)
    assert (refused.value.code, refused.value.numbers) == (FaultCode.TOO_LONG, {"duration_s": 4.0, "allowed_s": 3.0})


def test_files_of_one_budget_share_it_and_writing_again_takes_no_more() -> None:
    budget = Budget(3 * MIB)
    one, other = (budget.open(os.memfd_create("output")) for _ in range(2))
    for _ in range(3):
        one.seek(0)
        one.write(bytes(2 * MIB))
        one.flush()
    other.write(bytes(MIB))
    other.flush()
    with pytest.raises(Fault):
        other.write(bytes(MIB))
    assert budget.is_exceeded
    for file in (one, other):
        file.detach().close()  # type: ignore[attr-defined]


def test_no_file_of_the_process_grows_past_the_whole_budget() -> None:
    program = (
        "import os; from mastering.worker.budget import Budget, _REPORT_BYTES as r; Budget(1 << 20).enforce(); "
        "m = os.memfd_create('x'); os.lseek(m, (1 << 20) + r - 1, 0); os.write(m, b'x'); os.write(m, b'x')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd())
    assert ended.returncode == 1
    assert "File too large" in ended.stderr


def test_a_worker_refuses_masters_that_are_more_than_it_may_hold(song: bytes) -> None:
    with running_worker("mastering.engine.pipeline:master", max_output_bytes=MIB) as worker:
        assert worker.render(request_body(song, Settings(outputs=LOSSLESS))).fault.code == FaultCode.TOO_LARGE


def test_a_worker_ends_a_render_that_writes_more_than_its_song_promised() -> None:
    with running_worker(f"{FAKE}:copy", max_output_bytes=MIB) as worker:
        assert worker.render(request_body(bytes(2 * MIB))).fault.code == FaultCode.TOO_LARGE
