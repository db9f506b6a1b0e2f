"""`router deploy space`: creates or updates a Space on the Hugging Face Hub. What it would do can be seen before.

What goes up is listed file by file in code: a Space's own folder, the packages that it runs, nothing else of the
checkout. Secrets are read from this process's environment by name, so that none stands in a command line.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import typer

from router.core.command_error import CommandError
from router.tiers.fleet import catalogue
from router.tiers.space.hub import Hub, HubError, saved_token

CHECKOUT = Path(__file__).parents[2]
TOKENS = ("HF_TOKEN", "ROUTER_HF_TOKEN")


class DeploymentKind(NamedTuple):
    """A Space of ours."""

    sdk: str
    hardware: str | None
    """What it needs; None: what a new Space has for free."""


KINDS = {
    "zero_gpu": DeploymentKind("gradio", "zero-a10g"),
    "cpu": DeploymentKind("gradio", None),
    "router": DeploymentKind("docker", None),
}


class DeployOptions(NamedTuple):
    kind: str
    repo: str
    private: bool = True
    hardware: str | None = None
    sleep_s: int | None = None
    secrets: Sequence[str] = ()
    """Names of environment variables whose values become the Space's secrets."""
    variables: Sequence[str] = ()
    """NAME=VALUE each."""
    catalogue: Path | None = None


class Step(NamedTuple):
    what: str
    do: Callable[[], object]


def deploy(wanted: DeployOptions, *, dry_run: bool) -> None:
    """Create or update the Space. Raises Complaint."""
    files = files_of(wanted)
    with tempfile.TemporaryDirectory() as staged:
        hub = Hub(None if dry_run else _token())
        steps = list(_steps(wanted, files, hub, Path(staged)))
        for step in steps:
            typer.echo(f"{'would ' if dry_run else ''}{step.what}")
            if not dry_run:
                _do(step)
        if dry_run:
            for name, source in sorted(files.items()):
                typer.echo(f"  {source.stat().st_size:>9} {name}")


def files_of(wanted: DeployOptions) -> dict[str, Path]:
    """Path in the Space → file here. Raises Complaint."""
    folder = CHECKOUT / "spaces" / wanted.kind
    if wanted.kind not in KINDS or not folder.is_dir():
        raise CommandError(
            f"there is no Space {wanted.kind!r} in this checkout; known are {', '.join(KINDS)}.", exit_code=2
        )
    return _router_files(wanted) if wanted.kind == "router" else _upload().files(wanted.kind)


def _upload() -> ModuleType:
    from mastering_space import upload  # it belongs to the checkout, not to an installed router

    return upload


def _router_files(wanted: DeployOptions) -> dict[str, Path]:
    if wanted.catalogue is None:
        raise CommandError("a router needs tiers: name the file that lists them with --catalogue.", exit_code=2)
    catalogue.read(wanted.catalogue)
    upload = _upload()
    found: dict[str, Path] = upload.own_files("router")
    found |= {name: CHECKOUT / name for name in ("pyproject.toml", "locks/router.txt", "LICENSE")}
    for package in ("mastering", "router"):
        found |= {path.relative_to(CHECKOUT).as_posix(): path for path in upload.program_files(CHECKOUT / package)}
    return {**found, "catalogue.toml": wanted.catalogue}


def _steps(wanted: DeployOptions, files: dict[str, Path], hub: Hub, staged: Path) -> Iterator[Step]:
    repo, kind = wanted.repo, KINDS[wanted.kind]
    secrets = {name: _value_of(name) for name in wanted.secrets}
    variables = dict(_pair(given) for given in wanted.variables)
    seen = "private" if wanted.private else "public"
    yield Step("ask the Hub whose token this is", hub.whoami)
    yield Step(
        f"create {repo} as a {seen} {kind.sdk} Space, if it is not there",
        partial(hub.create_space, repo, kind.sdk, private=wanted.private),
    )
    yield Step(f"make it {seen}", partial(hub.set_private, repo, private=wanted.private))
    for name, value in secrets.items():
        yield Step(f"set the secret {name}", partial(hub.set_secret, repo, name, value))
    for name, value in variables.items():
        yield Step(f"set the variable {name}", partial(hub.set_variable, repo, name, value))
    hardware = wanted.hardware or kind.hardware
    if hardware is not None:
        yield Step(f"ask for the hardware {hardware}", partial(hub.request_hardware, repo, hardware))
    if wanted.sleep_s is not None:
        sentence = f"let it sleep after {wanted.sleep_s} s without a request"
        yield Step(sentence, partial(hub.set_sleep, repo, wanted.sleep_s))
    size_bytes = sum(source.stat().st_size for source in files.values())
    yield Step(
        f"upload {len(files)} files ({size_bytes / 1e6:.1f} MB), and remove every other one there",
        lambda: hub.upload(repo, _stage(files, staged), f"Deploy {wanted.kind}"),
    )


def _stage(files: dict[str, Path], folder: Path) -> Path:
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder


def _do(step: Step) -> None:
    try:
        step.do()
    except HubError as error:
        raise CommandError(f"could not {step.what}: {error}.") from None


def _token() -> str:
    token = next((os.environ[name] for name in TOKENS if os.environ.get(name)), None) or saved_token()
    if not token:
        raise CommandError("a Hugging Face token that may write is needed: set HF_TOKEN, or run 'hf auth login'.")
    return token


def _value_of(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise CommandError(
            f"--secret {name}: there is no environment variable of that name to read it from.", exit_code=2
        )
    return value


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise CommandError("--variable: write NAME=VALUE.", exit_code=2)
    return name, value
