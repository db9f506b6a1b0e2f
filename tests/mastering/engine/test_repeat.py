"""A plan makes the same master every time: across processes, threads and what the CPU's features are taken to be."""

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mastering.contract import Fault, FaultCode, Plan, Settings
from mastering.contract.plan import CHAIN
from mastering.contract.presets import presets
from mastering.dsp import board
from mastering.engine import pipeline, replay
from mastering.engine.plan import plan_hash
from tests import warm_start
from tests.mastering.sound import loud_mix, master, music, wav

_RENDER = """
import hashlib, io, sys
import soundfile
from mastering.engine import replay
song, *plans = sys.argv[1:]
for plan in plans:
    out = io.BytesIO()
    replay.render_plan(open(song, "rb"), replay.read_plan(open(plan, "rb")), open_output=lambda kind: out)
    print(hashlib.sha256(soundfile.read(io.BytesIO(out.getvalue()), dtype="int32")[0].tobytes()).hexdigest())
"""
_PLAN = """
import sys
from mastering.contract import Settings
from mastering.engine import pipeline
print(pipeline.make_plan(open(sys.argv[1], "rb"), Settings()).model_dump_json())
"""


def _render(source: bytes, chosen: Plan) -> bytes:
    out = io.BytesIO()
    replay.render_plan(io.BytesIO(source), chosen, open_output=lambda kind: out)
    return out.getvalue()


def _pcm(data: bytes) -> str:
    samples, _ = soundfile.read(io.BytesIO(data), dtype="int32")
    return hashlib.sha256(samples.tobytes()).hexdigest()


@dataclass(frozen=True)
class Made:
    """A song, plans of it and the digests of their masters' PCM; the first plan has every step of the chain."""

    song: Path
    plans: list[Path]
    digests: list[str]

    def rendered_by(self, python: str, **environment: str) -> list[str]:
        """The digests of what another process renders."""
        # NumPy warns of features that this CPU has not got anyway.
        command = [python, "-W", "ignore", "-c", _RENDER, str(self.song), *map(str, self.plans)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        return done.stdout.split()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """In every style, each with a board; first in one that has every step, by a reference."""
    folder = tmp_path_factory.mktemp("repeat")
    source, reference = wav(loud_mix(seconds=3)), wav(music(seconds=3)[::-1] * np.float32(0.3))
    (folder / "song.wav").write_bytes(source)
    plans, digests = [], []
    for style in ("loud", *presets().styles):
        out, settings = io.BytesIO(), Settings(target="cd", style=style)
        references = [io.BytesIO(reference)] if not plans else []
        report = pipeline.master(
            io.BytesIO(source), settings, references=references, open_output=lambda kind, out=out: out
        )
        assert report.plan.board is not None
        assert plans or {step.name for step in report.plan.steps} == set(CHAIN)
        plans.append(folder / f"{len(plans)}.json")
        plans[-1].write_text(report.plan.model_dump_json())
        digests.append(_pcm(out.getvalue()))
    assert len(set(digests)) == len(digests)
    return Made(folder / "song.wav", plans, digests)


@pytest.mark.parametrize(
    "environment",
    [
        {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
        {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3"},
        {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX512VL", "SOXR_USE_SIMD64": "0"},
        {"OPENBLAS_CORETYPE": "Nehalem"},
        {"OPENBLAS_CORETYPE": "Haswell"},
    ],
    ids=["one thread", "two threads", "no AVX in numpy", "no AVX in libm and soxr", "BLAS for Nehalem", "Haswell"],
)
def test_another_process_renders_the_same_samples(made: Made, environment: dict[str, str]) -> None:
    assert made.rendered_by(sys.executable, **environment) == made.digests


def test_another_python_renders_the_same_samples(made: Made) -> None:
    other = os.environ.get("MASTERING_OTHER_PYTHON")
    if other is None:
        pytest.skip("no other Python here: `make test-other-python` prepares one and runs this")
    version = "import sys; print(*sys.version_info[:2])"
    asked = subprocess.run([other, "-c", version], capture_output=True, text=True, check=True).stdout.split()
    assert tuple(map(int, asked)) != sys.version_info[:2]
    assert made.rendered_by(other, PYTHONPATH=str(Path(__file__).parents[3])) == made.digests


def test_blocks_of_another_length_render_the_same_samples(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    # What comes before the loudness, which is given by the plan: pedalboard's buffers and its pieces.
    source = wav(loud_mix(seconds=3))
    monkeypatch.setattr(board, "_BUFFER_FRAMES", 509)
    rendered = [_pcm(_render(source, Plan.model_validate_json(plan.read_text()))) for plan in made.plans]
    assert rendered == made.digests


def test_a_plan_is_the_same_by_another_number_of_threads(made: Made) -> None:
    # A matrix product on two threads adds in another order than on one, which shows in a loudness's ninth digit.
    found = set()
    for threads in ("1", "2"):
        command = [sys.executable, "-c", _PLAN, str(made.song)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


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


def test_verify_plan_proves_the_master_and_finds_a_changed_sample(made: Made, tmp_path: Path) -> None:
    song, plan = made.song, made.plans[0]
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
