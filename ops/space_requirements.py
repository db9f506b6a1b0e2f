"""What each Space needs to have installed: the extra `space` of pyproject.toml, and what Hugging Face adds to it.

The engine itself is uploaded beside `app.py`, so its dependencies are all that is left to install.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent
SPACE_PYTHON = "3.12"
"""What the Spaces' cards ask for."""
ZERO_GPU_TORCH = "2.8.0"
"""Of the versions that ZeroGPU offers (docs/spaces.md), one that the engine knows."""
_OF_BUILDER = ("uvicorn>=0.14.0", "websockets>=10.4", "spaces")
"""What Hugging Face installs into every Space beside Gradio, as its builds' logs say."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_OURS = re.compile(r"mastering-router\[([a-z,]+)\]")


def asked_for(kind: str) -> list[str]:
    """Requirements of the Space `kind` (cpu, zero_gpu): its own, and those that Hugging Face's builder adds, so that
    the builder finds all of them installed and takes none from the index without a checksum."""
    return [
        *sorted(own_packages(), key=key),
        f"gradio[oauth,mcp]=={gradio_version()}",
        *_OF_BUILDER,
        f"torch=={torch_of(kind)}",
    ]


def own_packages() -> set[str]:
    """Names of what the engine and a Space's server import."""
    project = _project()
    space = package_names(project["optional-dependencies"]["space"], project)
    return package_names(project["dependencies"], project) | space


def gradio_version() -> str:
    """The version that a card's `sdk_version` must name."""
    lines = (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines()
    (gradio,) = [line for line in lines if line.startswith("gradio==")]
    return gradio.partition("==")[2]


def torch_of(kind: str) -> str:
    """The version of torch on a Space; the CPU Space's is everybody's."""
    (torch,) = _project()["optional-dependencies"]["gpu"]
    return ZERO_GPU_TORCH if kind == "zero_gpu" else torch.partition("==")[2]


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


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def key(name: str) -> str:
    """A package's name as the index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
