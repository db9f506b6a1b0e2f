"""Whatever this project installs by pip, it installs by checksum: no command without hashes, no list with a gap."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from ops import lock_hashes
from ops.space_requirements import CHECKOUT, ZERO_GPU_TORCH, asked_for, key
from router.privacy import packages

_INSTALL = re.compile(r"""\bpip["']?,?\s*["']?(?:install|download|wheel)\b[^\n]*""")
"""From the call to the end of its line, in shell, in make and as a list of words in Python."""
_THE_PROJECT_ITSELF = re.compile(r"--no-deps --no-build-isolation (?:--editable )?\.(?=\s|`|$)")
"""Its own code and no package from elsewhere; what builds it is on the lists."""
_NO_COMMANDS = ("docs/decisions/", "tests/", "CHANGELOG.md")
"""History and fixtures."""
LISTS = sorted((CHECKOUT / "locks").glob("*.txt")) + sorted((CHECKOUT / "spaces").glob("*/*requirements.txt"))


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (CHECKOUT / name).is_file()]


def installs() -> list[tuple[str, str]]:
    """Each call of pip that fetches packages, with its file. Lines that go on are one."""
    found = []
    for name in tracked():
        if name.startswith(_NO_COMMANDS) or (CHECKOUT / name).suffix in {".json", ".svg", ".png"}:
            continue
        text = re.sub(r"\\\n\s*", " ", (CHECKOUT / name).read_text("utf-8"))
        for call in _INSTALL.findall(text):
            found += [(name, command) for command in re.split(r"&&|;|\|", call) if _INSTALL.search(command)]
    return found


def test_every_call_of_pip_wants_checksums() -> None:
    calls = installs()
    assert len(calls) >= 6
    assert [
        (name, command)
        for name, command in calls
        if "--require-hashes" not in command and not _THE_PROJECT_ITSELF.search(command)
    ] == []


def test_every_list_that_is_named_is_there() -> None:
    named = {
        found
        for name in tracked()
        if not name.startswith(_NO_COMMANDS)
        for found in re.findall(r"locks/[\w-]+\.txt", (CHECKOUT / name).read_text("utf-8", "replace"))
    }
    assert len(named) >= 8
    assert sorted(found for found in named if not (CHECKOUT / found).is_file()) == []
    assert {f"locks/{path.name}" for path in (CHECKOUT / "locks").glob("*.txt")} == named


@pytest.mark.parametrize("path", LISTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_package_on_every_list_has_a_checksum(path: Path) -> None:
    text = path.read_text("utf-8")
    assert packages.unlocked(text, {}) == []
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert set(options) <= {"--extra-index-url https://download.pytorch.org/whl/cpu"}


def pinned(path: Path) -> dict[str, str]:
    return {key(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text("utf-8"), re.M)}


def test_both_builds_of_torch_have_theirs_and_only_the_one_with_cuda_brings_it() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    (torch,) = project["optional-dependencies"]["gpu"]
    whole, small = (pinned(CHECKOUT / "locks" / f"{name}.txt") for name in ("torch", "torch-cpu"))
    assert f"torch=={whole['torch']}" == torch
    assert small["torch"] == whole["torch"] + "+cpu"
    assert not [name for name in small if name.startswith(("nvidia", "cuda", "triton"))]
    assert set(whole) - set(small) == {name for name in whole if name.startswith(("nvidia", "cuda", "triton"))}
    builds = [line.split() for line in lock_hashes.CPU_TORCH.read_text("utf-8").splitlines()]
    assert {name.split("-")[1] for _, name in builds} == {small["torch"]}
    assert {name.split("-")[2] for _, name in builds} >= {"cp311", "cp312", "cp313", "cp314"}
    text = (CHECKOUT / "locks" / "torch-cpu.txt").read_text("utf-8")
    (entry,) = [each for each in lock_hashes.requirements_in(text) if each.startswith("torch==")]
    assert re.findall(r"sha256:(\w+)", entry) == [found for found, _ in builds]


_PIP = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  *"pip list"*) echo "$INSTALLED" ;;
  *torch-cpu.txt*extra-index-url*) [ -n "$PYTORCH_HAS_IT" ] || { echo "$FAILURE"; exit 1; } ;;
  *torch-cpu.txt*) [ -n "$INDEX_HAS_IT" ] || { echo "$FAILURE"; exit 1; } ;;
esac
"""
_NONE = "ERROR: No matching distribution found for torch==2.13.0+cpu"
_BY_LIST = "locks/torch-cpu.txt"
_BY_PYTORCH = "locks/torch-cpu.txt --extra-index-url https://download.pytorch.org/whl/cpu"
_FOR_CUDA = "locks/torch.txt"


@pytest.mark.parametrize(
    ("build", "machine", "installed"),
    [
        ("", {"DRIVER": "1"}, [_FOR_CUDA]),
        ("", {"DRIVER": "1", "INSTALLED": "torch==2.13.0+cpu"}, ["-m pip uninstall --quiet --yes torch", _FOR_CUDA]),
        ("cpu", {"DRIVER": "1", "INDEX_HAS_IT": "1"}, [_BY_LIST]),
        ("cpu", {"PYTORCH_HAS_IT": "1"}, [_BY_LIST, _BY_PYTORCH]),
        ("cpu", {}, [_BY_LIST, _BY_PYTORCH, _FOR_CUDA]),
        ("cpu", {"FAILURE": "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"}, [_BY_LIST]),
    ],
    ids=["driver", "driver, build for CPUs", "cpu said", "by PyTorch", "by nobody", "another file"],
)
def test_torch_is_installed_for_what_is_there_and_from_where_it_is_offered(
    build: str, machine: dict[str, str], installed: list[str], tmp_path: Path
) -> None:
    for name, text in {"python": _PIP, "nvidia-smi": '#!/bin/sh\n[ -n "$DRIVER" ]\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls), "FAILURE": _NONE, **machine}
    command = ["ops/install_torch.sh", str(tmp_path), *filter(None, [build])]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    refusal = "" if environment["FAILURE"] == _NONE else environment["FAILURE"]
    assert (done.returncode, done.stderr.strip()) == (bool(refusal), refusal)
    found = [call for call in calls.read_text().splitlines() if " list " not in call]
    by_list = "-m pip install --quiet --no-compile --require-hashes --no-deps --requirement "
    # What an import of it loads is compiled, once it is there.
    assert [call.removeprefix(by_list) for call in found] == [*installed, *([] if refusal else ["-c import torch"])]


def test_checksums_of_another_torch_are_noticed() -> None:
    with pytest.raises(ValueError, match=r"not of torch 2\.99\.0\+cpu"):
        lock_hashes.for_cpus("torch==2.99.0 \\\n    --hash=sha256:00\n")


@pytest.mark.parametrize("kind", ["cpu", "zero_gpu"])
def test_a_space_installs_all_that_it_and_hugging_face_ask_for_by_its_own_list(kind: str) -> None:
    """Hugging Face installs `requirements.txt` in one call with packages of its own, which have no checksums."""
    folder = CHECKOUT / "spaces" / kind
    rows = (folder / "requirements.txt").read_text("utf-8").splitlines()
    assert all(row.startswith("#") for row in rows)
    held = pinned(folder / "pre-requirements.txt")
    asked = {key(re.split(r"[\[=<>]", wanted)[0]) for wanted in asked_for(kind)}
    assert asked <= set(held)
    resolved = pinned(CHECKOUT / "constraints.txt")
    other = {name for name, version in held.items() if resolved.get(name, version) != version}
    assert other == {"pydantic", "pydantic-core"}, "Gradio's extra `mcp` wants an older one"
    assert held["torch"] == (
        ZERO_GPU_TORCH if kind == "zero_gpu" else pinned(CHECKOUT / "locks/torch-cpu.txt")["torch"]
    )
