"""A plan makes the same master every time: across processes, threads and what the CPU's features are taken to be."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from mastering.contract import Fault, FaultCode, OutputFormat, Plan, Settings
from mastering.engine import replay
from mastering.engine.plan import plan_hash
from tests import warm_start
from tests.mastering.sound import loud_mix, master, music, wav

_RENDER = """
import io, sys
from mastering.engine import replay
out = io.BytesIO()
chosen = replay.read_plan(open(sys.argv[2], "rb"))
replay.render_plan(open(sys.argv[1], "rb"), chosen, open_output=lambda kind: out)
sys.stdout.buffer.write(out.getvalue())
"""


def _render(source: bytes, chosen: Plan) -> bytes:
    out = io.BytesIO()
    replay.render_plan(io.BytesIO(source), chosen, open_output=lambda kind: out)
    return out.getvalue()


def _pcm(data: bytes) -> str:
    samples, _ = soundfile.read(io.BytesIO(data), dtype="int32")
    return hashlib.sha256(samples.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(song, plan, digest of the master's PCM), with every step of the chain at work."""
    folder = tmp_path_factory.mktemp("repeat")
    source = wav(loud_mix(seconds=8))
    report, files = master(source, Settings(target="cd", style="loud"))
    assert {step.name for step in report.plan.steps} == {"tone", "compressor", "saturation", "loudness", "limiter"}
    (folder / "song.wav").write_bytes(source)
    (folder / "plan.json").write_text(report.plan.model_dump_json())
    return folder / "song.wav", folder / "plan.json", _pcm(files[OutputFormat.WAV24])


@pytest.mark.parametrize(
    "environment",
    [
        {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
        {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3"},
        {"OPENBLAS_CORETYPE": "Nehalem"},
        {"OPENBLAS_CORETYPE": "Haswell"},
    ],
    ids=["one thread", "two threads", "no AVX in numpy", "BLAS for Nehalem", "BLAS for Haswell"],
)
def test_another_process_renders_the_same_samples(made: tuple[Path, Path, str], environment: dict[str, str]) -> None:
    song, plan, expected = made
    # NumPy warns of features that this CPU has not got anyway.
    command = [sys.executable, "-W", "ignore", "-c", _RENDER, str(song), str(plan)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, check=True)
    assert _pcm(done.stdout) == expected


def test_another_python_renders_the_same_samples(made: tuple[Path, Path, str]) -> None:
    other = os.environ.get("MASTERING_OTHER_PYTHON")
    if other is None:
        pytest.skip("no other Python here: `make test-other-python` prepares one and runs this")
    version = "import sys; print(*sys.version_info[:2])"
    asked = subprocess.run([other, "-c", version], capture_output=True, text=True, check=True).stdout.split()
    assert tuple(map(int, asked)) != sys.version_info[:2]
    song, plan, expected = made
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [other, "-c", _RENDER, str(song), str(plan)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert _pcm(done.stdout) == expected


def test_the_hash_tells_plans_apart_by_what_they_render() -> None:
    source = wav(music(seconds=4))
    one = master(source, Settings())[0].plan
    other = master(source, Settings(loudness_lufs=-13))[0].plan
    assert plan_hash(one) == plan_hash(Plan.model_validate_json(one.model_dump_json()))
    assert plan_hash(one) != plan_hash(other)


def test_a_plan_of_another_engine_is_refused() -> None:
    source = wav(music(seconds=2))
    old = master(source, Settings())[0].plan.model_copy(update={"engine_version": "0.0.1"})
    with pytest.raises(Fault) as caught:
        _render(source, old)
    assert caught.value.code is FaultCode.BAD_SETTINGS


def test_verify_plan_proves_the_master_and_finds_a_changed_sample(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    song, plan, _ = made
    master_path = tmp_path / "master.wav"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return warm_start.run("mastering.cli:main", arguments)

    assert run("render", song, "--plan", plan, "-o", master_path).returncode == 0
    proven = run("verify-plan", song, master_path, "--plan", plan)
    assert proven.returncode == 0
    assert plan_hash(Plan.model_validate(json.loads(plan.read_text()))) in proven.stdout
    changed = bytearray(master_path.read_bytes())
    changed[100_000] ^= 1
    master_path.write_bytes(changed)
    refused = run("verify-plan", song, master_path, "--plan", plan)
    assert refused.returncode == 34
    assert "null test fails" in refused.stderr
