"""`router deploy space`: creates or updates a Space on the Hugging Face Hub; `--dry-run` lists the steps instead.

What goes up is listed file by file in code: a Space's own folder, the packages that it runs, nothing else of the
checkout. Secrets are read from this process's environment by name, so that none stands in a command line.
"""

from __future__ import annotations

import os
import re
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
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
TOKEN_VARIABLES = ("HF_TOKEN", "ROUTER_HF_TOKEN")


class DeploymentKind(NamedTuple):
    """One of this project's Spaces: its SDK and hardware on the Hub."""

    sdk: str
    hardware: str | None
    """The Hub's name of the hardware that it needs; None: the free hardware of a new Space."""


KINDS = {
    "zero_gpu": DeploymentKind("gradio", "zero-a10g"),
    "cpu": DeploymentKind("gradio", None),
    "router": DeploymentKind("docker", None),
}


class DeployOptions(NamedTuple):
    """The options of `router deploy space`."""

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


class DeployStep(NamedTuple):
    """One change on the Hub: a sentence that completes "would …", and the call that does it."""

    what: str
    do: Callable[[], object]


def deploy(options: DeployOptions, *, dry_run: bool) -> None:
    """Create or update the Space. Raises CommandError."""
    if not _REPO.fullmatch(options.repo):
        raise CommandError("--repo: write owner/name, of letters, digits, '-', '_' and '.'.", exit_code=2)
    files = space_files(options)
    with tempfile.TemporaryDirectory() as staged:
        hub = Hub(None if dry_run else _hub_token())
        steps = list(_steps(options, files, hub, Path(staged)))
        for step in steps:
            typer.echo(f"{'would ' if dry_run else ''}{step.what}")
            if not dry_run:
                _run_step(step)
        if dry_run:
            for name, source in sorted(files.items()):
                typer.echo(f"  {source.stat().st_size:>9} {name}")


def space_files(options: DeployOptions) -> dict[str, Path]:
    """The files to upload: path in the Space → file here. Raises CommandError."""
    folder = CHECKOUT / "spaces" / options.kind
    if options.kind not in KINDS or not folder.is_dir():
        raise CommandError(
            f"there is no Space {options.kind!r} in this checkout; known are {', '.join(KINDS)}.", exit_code=2
        )
    return _router_files(options) if options.kind == "router" else _upload_lists().files(options.kind)


def _upload_lists() -> ModuleType:
    from mastering_space import upload  # it belongs to the checkout, not to an installed router

    return upload


def _router_files(options: DeployOptions) -> dict[str, Path]:
    if options.catalogue is None:
        raise CommandError("a router needs tiers: name the file that lists them with --catalogue.", exit_code=2)
    catalogue.read_catalogue(options.catalogue)
    upload = _upload_lists()
    found: dict[str, Path] = upload.own_files("router")
    found |= {name: CHECKOUT / name for name in ("pyproject.toml", "locks/router.txt", "LICENSE")}
    for package in ("mastering", "router"):
        found |= {path.relative_to(CHECKOUT).as_posix(): path for path in upload.program_files(CHECKOUT / package)}
    return {**found, "catalogue.toml": options.catalogue}


def _steps(options: DeployOptions, files: dict[str, Path], hub: Hub, staged: Path) -> Iterator[DeployStep]:
    repo, kind = options.repo, KINDS[options.kind]
    secrets = {name: _environment_value(name) for name in options.secrets}
    variables = dict(_name_and_value(given) for given in options.variables)
    seen = "private" if options.private else "public"
    yield DeployStep("ask the Hub whose token this is", hub.whoami)
    yield DeployStep(
        f"create {repo} as a {seen} {kind.sdk} Space, if it is not there",
        partial(hub.create_space, repo, kind.sdk, private=options.private),
    )
    yield DeployStep(f"make it {seen}", partial(hub.set_private, repo, private=options.private))
    for name, value in secrets.items():
        yield DeployStep(f"set the secret {name}", partial(hub.set_secret, repo, name, value))
    for name, value in variables.items():
        yield DeployStep(f"set the variable {name}", partial(hub.set_variable, repo, name, value))
    hardware = options.hardware or kind.hardware
    if hardware is not None:
        yield DeployStep(f"ask for the hardware {hardware}", partial(hub.request_hardware, repo, hardware))
    if options.sleep_s is not None:
        sentence = f"let it sleep after {options.sleep_s} s without a request"
        yield DeployStep(sentence, partial(hub.set_sleep, repo, options.sleep_s))
    size_bytes = sum(source.stat().st_size for source in files.values())
    yield DeployStep(
        f"upload {len(files)} files ({size_bytes / 1e6:.1f} MB), and remove every other one there",
        lambda: hub.upload(repo, _copied_files(files, staged), f"Deploy {options.kind}"),
    )


def _copied_files(files: dict[str, Path], folder: Path) -> Path:
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder


def _run_step(step: DeployStep) -> None:
    try:
        step.do()
    except HubError as error:
        raise CommandError(f"could not {step.what}: {error}.") from None


def _hub_token() -> str:
    token = next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None) or saved_token()
    if not token:
        raise CommandError("a Hugging Face token that may write is needed: set HF_TOKEN, or run 'hf auth login'.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise CommandError("the Hugging Face token holds a space, a line break or a letter beyond ASCII.", exit_code=2)
    return token


def _environment_value(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise CommandError(
            f"--secret {name}: there is no environment variable of that name to read it from.", exit_code=2
        )
    return value


def _name_and_value(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise CommandError("--variable: write NAME=VALUE.", exit_code=2)
    return name, value
