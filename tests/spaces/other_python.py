"""Both Spaces by another Python, with what their own lists install there: the same samples as by this one.

Not collected by itself, since most machines have no other Python: `make test-other-python` prepares one and names this
file. torch is left out of what it installs, being gigabytes; the Spaces then say so of a fit.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mastering.contract import Effort, OutputFormat, Plan, Settings
from mastering.engine import pipeline
from mastering.engine.refine import NO_TORCH
from ops.space_requirements import gradio_version
from tests.processes import family, renderers
from tests.songs import demo
from tests.space_process import Kind, SpaceProcess, call, fetch, put, running_space
from tests.spaces.test_cpu_space import by_command, pcm
from tests.spaces.test_the_life_of_a_job import files_left, memories

EVERY_STEP = Settings(style="loud", target="cd", outputs=(OutputFormat.WAV24, OutputFormat.MP3))


@pytest.fixture(scope="module")
def other() -> Path:
    named = os.environ.get("MASTERING_OTHER_PYTHON")
    assert named, "MASTERING_OTHER_PYTHON names the other Python: run `make test-other-python`"
    return Path(named).absolute()  # not resolved: a virtual environment is known by its link


@pytest.fixture(scope="module", params=["cpu", "zero_gpu"])
def space(other: Path, request: pytest.FixtureRequest) -> Iterator[SpaceProcess]:
    kind: Kind = request.param
    with running_space(kind, python=other) as running:
        yield running


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 12)


def test_it_is_another_python_with_the_gradio_of_the_cards(other: Path) -> None:
    asks = "import sys, gradio; print(*sys.version_info[:2], gradio.__version__)"
    major, minor, gradio = subprocess.run(
        [other, "-c", asks], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (int(major), int(minor)) != sys.version_info[:2]
    assert gradio == gradio_version()


def test_the_space_and_its_rendering_processes_run_by_it(other: Path, space: SpaceProcess) -> None:
    ours = Path(sys.executable).resolve()
    for pid in (space.pid, *family(space.pid)):
        assert Path(f"/proc/{pid}/exe").resolve() == other.resolve() != ours
    assert renderers(space.pid), "one is kept ready"


def test_a_song_by_put_master_and_get_has_the_samples_that_this_python_makes(
    space: SpaceProcess, song: Path, tmp_path: Path
) -> None:
    job = secrets.token_hex(16)
    assert put(space, job, song).status_code == 201
    stages: list[str] = []
    last = call(space, job, EVERY_STEP, on_event=lambda event: stages.append(event.get("stage", "")))
    assert last["type"] == "end", last
    assert "render" in stages
    steps = {step["name"] for step in last["report"]["plan"]["steps"]}
    assert steps == {"board", "compressor", "saturation", "loudness", "limiter"}, "every step but a reference's tone"
    assert np.array_equal(by_command(song, tmp_path, EVERY_STEP), pcm(fetch(space, job)))
    (tmp_path / "master.mp3").write_bytes(fetch(space, job, "mp3"))
    assert soundfile.info(tmp_path / "master.mp3").format == "MP3"
    with space.client() as client:
        assert client.delete(f"/v1/jobs/{job}").is_success
    assert memories(space.pid) == 0
    assert files_left(space) == []


def test_a_song_with_a_reference_does_too(space: SpaceProcess, song: Path, tmp_path: Path) -> None:
    job, like = secrets.token_hex(16), demo(tmp_path / "like.flac", 6)
    put(space, job, like, "references/0")
    put(space, job, song)
    assert call(space, job, EVERY_STEP)["type"] == "end"
    assert np.array_equal(by_command(song, tmp_path, EVERY_STEP, "--reference", like), pcm(fetch(space, job)))


def test_a_fit_says_that_there_is_no_torch_and_keeps_the_quick_plan(space: SpaceProcess, song: Path) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    last = call(space, job, EVERY_STEP.model_copy(update={"effort": Effort.FIT}))
    assert last["type"] == "end", last
    assert NO_TORCH in last["report"]["flags"]
    with song.open("rb") as source:
        quick = pipeline.make_plan(source, EVERY_STEP)
    assert Plan.model_validate(last["report"]["plan"]).steps == quick.steps


def test_the_page_and_its_files_are_served(space: SpaceProcess) -> None:
    with space.client() as client:
        page = client.get("/").raise_for_status().text
        for address in re.findall(r'(?:href|src)="(static/[^"]+)"', page):
            assert client.get(f"/{address}").status_code == 200
