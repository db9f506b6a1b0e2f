"""`python -m ops.lock_hashes`: the versions of constraints.txt with the checksums of their files, for every install.

Writes locks/*.txt, for any platform from Python 3.11 on, and spaces/*/pre-requirements.txt, for Hugging Face's. It asks
the package index by uv, which comes by checksum too, from the locks/uv.txt that is there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from ops.space_requirements import CHECKOUT, SPACE_PYTHON, asked_for, key, torch_of

LOCKS = {
    "run": ("router", "worker"),
    "router": ("router",),
    "worker": ("worker",),
    "demo": ("router", "worker", "space"),
    "test": ("router", "worker", "test"),
    "bench": ("bench",),
}
"""List → extras of pyproject.toml. setuptools is in each: it builds the project itself."""
APART = {"uv": "uv", "audit": "pip-audit"}
"""List → the program that it installs, in an environment of its own."""
CPU_TORCH = CHECKOUT / "locks" / "torch_cpu.sha256"
"""Checksums of torch's builds for CPUs by their files, as https://download.pytorch.org/whl/cpu/torch/ names them: they
are not on the package index, so a new version's are put there by hand."""
_CUDA = re.compile(r"(nvidia|cuda)-|triton==")
_UNIVERSAL = ("--universal", "--python-version", "3.11")
_ON_SPACES = ("--python-version", SPACE_PYTHON, "--python-platform", "x86_64-manylinux_2_28")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        by_pip = [f"{folder}/bin/pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", "locks/uv.txt"]
        subprocess.run(by_pip, check=True, cwd=CHECKOUT)
        uv = f"{folder}/bin/uv"
        texts = {f"locks/{name}.txt": text for name, text in locks(uv).items()}
        texts |= {f"spaces/{kind}/pre-requirements.txt": of_space(uv, kind) for kind in ("cpu", "zero_gpu")}
    for path, text in texts.items():  # all of them, or none where the index fails
        (CHECKOUT / path).write_text(text, "utf-8")


def locks(uv: str) -> dict[str, str]:
    """Name of a list in locks/ → its text."""
    found = {}
    for name, extras in LOCKS.items():
        said = f"pyproject.toml ({' '.join(extras)}) and constraints.txt"
        options = ["pyproject.toml", "-", *(word for extra in extras for word in ("--extra", extra))]
        found[name] = _head(said, name) + _compile(uv, "setuptools>=77", *options, *_UNIVERSAL)
    for name, program in APART.items():
        found[name] = _head("what 'make' uses itself", name) + _compile(uv, program, "-", *_UNIVERSAL)
    torch = _compile(uv, f"torch=={torch_of('cpu')}", "-", *_UNIVERSAL)
    found["torch"] = _head("the package index", "torch") + torch
    found["torch-cpu"] = _head(f"the same and {CPU_TORCH.name}", "torch-cpu") + for_cpus(torch)
    return found


def of_space(uv: str, kind: str) -> str:
    """The text of `spaces/<kind>/pre-requirements.txt`."""
    head = "# Made by `make lock` from pyproject.toml and constraints.txt (docs/spaces.md).\n"
    lock = _compile(uv, "\n".join(asked_for(kind)), "-", *_ON_SPACES)
    if kind == "cpu":
        return f"{head}--extra-index-url https://download.pytorch.org/whl/cpu\n{for_cpus(lock)}"
    return head + lock


def for_cpus(lock: str) -> str:
    """The lock with torch's build for CPUs in the place of the other, and without CUDA's libraries.

    Raises ValueError where the checksums at hand are of another version.
    """
    builds = [line.split() for line in CPU_TORCH.read_text("utf-8").splitlines()]
    whole = []
    for entry in requirements_in(lock):
        if entry.startswith("torch=="):
            version = entry.split()[0].partition("==")[2] + "+cpu"
            if any(not name.startswith(f"torch-{version}-") for _, name in builds):
                raise ValueError(f"{CPU_TORCH} is not of torch {version}")
            whole.append(f"torch=={version}" + "".join(f" \\\n    --hash=sha256:{found}" for found, _ in builds) + "\n")
        elif not _CUDA.match(entry):
            whole.append(entry)
    return "".join(whole)


def requirements_in(lock: str) -> list[str]:
    """A lock's requirements, each with its checksums."""
    return re.findall(r"^\w.*\n(?:[ \t].*\n)*", lock, re.MULTILINE)


def _head(said: str, name: str) -> str:
    return f"# Made by 'make lock' from {said}: pip install --require-hashes -r locks/{name}.txt\n"


def _compile(uv: str, asked: str, *options: str) -> str:
    """What is asked for and all that it needs, in the versions of constraints.txt, with checksums.

    A Space's pydantic is not held to them: Hugging Face adds Gradio's extra `mcp`, which wants an older one.
    """
    constraints = (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines(keepends=True)
    is_space = options[-len(_ON_SPACES) :] == _ON_SPACES
    held = [line for line in constraints if not (is_space and key(line).startswith("pydantic"))]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(held)
        file.flush()
        return _run([uv, "pip", "compile", *options, "--constraint", file.name], asked)


def _run(command: Sequence[str], asked: str) -> str:
    more = ["--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
    return subprocess.run(
        [*command, *more], input=asked, stdout=subprocess.PIPE, text=True, check=True, cwd=CHECKOUT
    ).stdout


if __name__ == "__main__":
    main()
