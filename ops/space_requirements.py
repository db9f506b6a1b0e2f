"""Makes the requirements.txt of each Space, from pyproject.toml's extra `space` and the versions in constraints.txt.

The engine itself is uploaded beside `app.py`, so its dependencies are all that is left to install. Gradio is left out:
Hugging Face installs the `sdk_version` of the Space's card before anything else.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent
ZERO_GPU_TORCH = "2.8.0"
"""Of the versions that ZeroGPU offers (docs/spaces.md), one that the engine knows."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_OURS = re.compile(r"mastering-router\[([a-z,]+)\]")


def requirements(kind: str) -> str:
    """The text of `spaces/<kind>/requirements.txt`."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {
        *package_names(project["dependencies"], project),
        *package_names(project["optional-dependencies"]["space"], project),
    }
    names -= {"gradio"} if kind == "zero_gpu" else {"gradio", "spaces"}
    pinned = _pinned()
    lines = [f"{pinned[key(name)]}" for name in sorted(names, key=key)]
    head = "# Made by `make docs` from pyproject.toml and constraints.txt."
    return "\n".join([head, *lines, *_torch(kind, project)]) + "\n"


def gradio_version() -> str:
    """The version that a card's `sdk_version` must name."""
    return _pinned()["gradio"].partition("==")[2]


def _torch(kind: str, project: dict[str, Any]) -> list[str]:
    if kind == "zero_gpu":
        return [f"torch=={ZERO_GPU_TORCH}"]
    (torch,) = project["optional-dependencies"]["gpu"]
    index = "--extra-index-url https://download.pytorch.org/whl/cpu"
    return ["# The build without CUDA: there is no GPU here.", index, f"{torch}+cpu"]


def package_names(requirements: list[str], project: dict[str, Any]) -> set[str]:
    """Names of the packages that the requirements name, themselves or through this project's own extras."""
    found: set[str] = set()
    for requirement in requirements:
        if ours := _OURS.match(requirement):
            for extra in ours[1].split(","):
                found |= package_names(project["optional-dependencies"][extra], project)
        elif name := _NAME.match(requirement):
            found.add(name[0])
    return found


def _pinned() -> dict[str, str]:
    lines = (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines()
    return {key(line.partition("==")[0]): line for line in lines if "==" in line}


def key(name: str) -> str:
    """A package's name as the index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
