"""The cards of the Spaces, what they install, and the example they show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import SpaceCardData, SpaceHardware

from mastering_space import upload
from ops.space_requirements import CHECKOUT, ZERO_GPU_TORCH, gradio_version, key, own_packages
from tests.songs import demo
from tests.space_process import SpaceProcess, fetch, put_together

KINDS = ["cpu", "zero_gpu"]
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def card(kind: str) -> tuple[dict[str, Any], str]:
    _, front, body = (CHECKOUT / "spaces" / kind / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.mark.parametrize("kind", KINDS)
def test_the_front_matter_is_what_hugging_face_reads(kind: str) -> None:
    front, _ = card(kind)
    assert SpaceCardData(**front).to_dict()["title"] == front["title"]
    assert ("gradio", gradio_version(), "3.12") == (front["sdk"], front["sdk_version"], front["python_version"])
    assert (CHECKOUT / "spaces" / kind / front["app_file"]).is_file()
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    assert front["suggested_hardware"] in list(SpaceHardware)
    assert len(front["short_description"]) <= 60


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_who_may_call_and_whose_quota_that_spends(kind: str) -> None:
    _, body = card(kind)
    assert "Deploy it **private**" in body
    assert "quota" in body
    assert upload.example() in body


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_installed_is_what_pyproject_asks_for(kind: str) -> None:
    text = (CHECKOUT / "spaces" / kind / "pre-requirements.txt").read_text("utf-8")
    pinned = {key(name) for name in re.findall(r"^([\w.-]+)==", text, re.M)}
    assert {key(name) for name in own_packages()} <= pinned
    assert f"\ngradio=={gradio_version()} " in text, "Hugging Face installs it too, as the card's sdk_version says"
    packages = [line for line in text.splitlines() if line and not line.startswith(("#", "--", " "))]
    assert all("==" in line for line in packages)


def test_zero_gpu_gets_a_torch_that_it_offers_and_the_cpu_space_one_without_cuda() -> None:
    pinned = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["gpu"]
    cpu, zero_gpu = (
        (CHECKOUT / "spaces" / kind / "pre-requirements.txt").read_text("utf-8") for kind in ("cpu", "zero_gpu")
    )
    assert f"\ntorch=={ZERO_GPU_TORCH} " in zero_gpu
    assert f"\n{pinned[0]}+cpu " in cpu


@pytest.mark.parametrize("kind", KINDS)
def test_a_spaces_folder_holds_all_that_its_app_imports(kind: str, tmp_path: Path) -> None:
    put_together("cpu" if kind == "cpu" else "zero_gpu", tmp_path)
    assert {"app.py", "README.md", "requirements.txt", "pre-requirements.txt", "mastering", "mastering_space"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert (tmp_path / "mastering" / "contract" / "presets.toml").is_file()
    assert not list(tmp_path.rglob("__pycache__"))


def test_the_example_in_the_card_masters_a_song(
    cpu_space: SpaceProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo(tmp_path / "song.wav", 3)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", card("cpu")[1], re.S)
    assert code is not None
    text = code[1].replace('"OWNER/NAME"', f'"{cpu_space.url}", verbose=False')
    names: dict[str, Any] = {"TOKEN": None}
    exec(text, names)  # noqa: S102 - what a reader of the card would run
    assert names["result"]["type"] == "end"
    assert fetch(cpu_space, names["job"])[:4] == b"RIFF"
    names["song"].close()
    names["client"].close()
