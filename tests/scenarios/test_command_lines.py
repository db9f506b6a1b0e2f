"""Every command with odd values: one line on standard error that names the cause, a documented exit code, no traceback.

The commands, their options and the settings are found by looking: a new one is walked by itself.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.main import get_command

import mastering.cli
import mastering.worker.__main__ as worker
from mastering.cli import EXIT_CODES as OF_FAULTS
from mastering.runtime import command_line
from mastering.worker import server as worker_server
from mastering.worker.settings import WorkerSettings
from router.app import server as router_server
from router.app import startup
from router.cli import main as router

UNKNOWN_HOST = "http://no-such-host.invalid"
ODD_URLS = (
    "", "http://", "ftp://x", "http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://a:secret@host",
    "http://127.0.0.1:9/path", "http://127.0.0.1:9/?q", "http://a b", "http://a\nb", "127.0.0.1:8080", "http://a..b",
    "http://" + "x" * 300, UNKNOWN_HOST, "//x",
)  # fmt: skip
ODD_TOKENS = ("with\nline", "with\r\nx-other: 1", "täken", "Bearer mr_1", "two words", " ", "\x1b[31m")
ODD_NUMBERS = ("", "many", "1e999", "-1", "9" * 30, "0x10")
ODD_TEXTS = ("", "\n", "ü\x1b[31m", "x" * 5000, "-")
ODD_PATHS = ("no such folder/file", ".", "\n/\n", "x" * 5000)


class Program(NamedTuple):
    """A command line: its app and how it is started."""

    app: typer.Typer
    start: Callable[[], object]
    exit_codes: set[int]


PROGRAMS = {
    "router": Program(router.app, router.main, {*router.EXIT_CODES} - {router._EXIT_INTERNAL, 0}),
    "mastering": Program(mastering.cli.app, mastering.cli.main, {1, 2, *OF_FAULTS.values()} - {40}),
    "mastering.worker": Program(
        worker.app, lambda: command_line.run(worker.app, "mastering.worker", worker._told), {2}
    ),
}
"""Each with the exit codes that it may end with; that of an error of our own is none of them."""
USUAL = {
    "kind": "cpu", "repo": "owner/name", "backend": "gpu-1", "songs": "song.wav", "song": "song.wav",
    "first": "song.wav", "second": "song.wav", "master_file": "song.wav", "plan_file": "song.wav",
    "output": "out.wav", "folder": "out",
}  # fmt: skip
"""Values of what a command must be given, by the parameter's name. The song is none: each command fails at last."""


class Walked(NamedTuple):
    """A command with a parameter, and a value that it is given."""

    program: str
    words: tuple[str, ...]
    parameter: Any
    value: str


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from leaves(each, (*words, name))
    else:
        yield words, command


COMMANDS = [
    (program, words, command)
    for program, known in PROGRAMS.items()
    for words, command in leaves(get_command(known.app))
]


def odd_values(parameter: Any) -> tuple[str, ...]:
    annotation = str(parameter.type_descriptor.annotation)
    if parameter.name in ("url", "worker"):
        return ODD_URLS
    if "Path" in annotation:
        return ODD_PATHS
    if re.search("int|float", annotation):
        return ODD_NUMBERS
    return ODD_TEXTS


def line_for(command: Any, parameter: Any, value: str) -> list[str]:
    """The command's words: what it must be given, and the odd value in its place."""
    options, arguments = [], []
    for each in command.params:
        given = value if each is parameter else USUAL.get(each.name) if each.required else None
        if given is None:
            assert not each.required, f"tell USUAL of {each.name}"
        elif each.param_type_name == "argument":
            arguments.append(given)
        else:
            options.append(f"{each.opts[0]}={given}" if each.opts[0].startswith("--") else given)
    more = ["--no-canary"] if command.name == "selfcheck" else []
    return [*more, *options, "--", *arguments]


def walks() -> Iterator[Walked]:
    for program, words, command in COMMANDS:
        for parameter in command.params:
            if not getattr(parameter, "is_flag", False) and parameter.name != "help":
                for value in odd_values(parameter):
                    if command.name == "selfcheck" and value == UNKNOWN_HOST:
                        continue  # a router that does not run is one of its findings
                    yield Walked(program, words, parameter, value)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a song that is none, and an environment without a router, folders of its own and no token."""
    for name in list(os.environ):
        if name.startswith(("ROUTER_", "MASTERING_", "HF_")):
            monkeypatch.delenv(name)
    (tmp_path / "song.wav").write_bytes(b"no song")
    for folder in ("RAM", "STATE", "SPOOL"):
        monkeypatch.setenv(f"ROUTER_{folder}_DIR", str(tmp_path / folder))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("ROUTER_URL", "ROUTER_ADMIN_URL"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    # What a start does to its process is not for the tests' own.
    monkeypatch.setattr(startup, "prepare_process", lambda _: lambda: 0)
    monkeypatch.setattr(router_server, "_Server", _serving)
    monkeypatch.setattr(worker_server, "serve", _serving)
    return tmp_path


def _serving(*_: object, **__: object) -> None:
    raise RuntimeError("nothing was found wrong")


def ended(
    program: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[object, str]:
    """The exit code and what was said on standard error."""
    monkeypatch.setattr(sys, "argv", [program, *words])
    with pytest.raises(SystemExit) as end:
        PROGRAMS[program].start()
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    return end.value.code, said.err


@pytest.mark.parametrize(("program", "words", "command"), COMMANDS, ids=lambda each: str(each)[:40])
def test_odd_values_of_every_parameter_are_one_line(
    program: str,
    words: tuple[str, ...],
    command: Any,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    wrong = []
    for walked in walks():
        if (walked.program, walked.words) == (program, words):
            line = [*words, *line_for(command, walked.parameter, walked.value)]
            code, said = ended(program, line, monkeypatch, capfd)
            is_one = said.count("\n") == 1 and said.endswith("\n") and said.startswith(f"{program}: ")
            if not is_one or code not in PROGRAMS[program].exit_codes or "secret" in said or "\x1b" in said:
                wrong.append((walked.parameter.name, walked.value[:40], code, said[:400]))
    assert wrong == []


def test_every_command_is_walked() -> None:
    assert len(COMMANDS) > 20
    assert {walked.words for walked in walks()} >= {("submit",), ("serve",), ("status",), ("master",), ()}
    assert sum(1 for _ in walks()) > 300


TO_A_ROUTER = [
    (words, parameter)
    for program, words, command in COMMANDS
    for parameter in command.params
    if program == "router" and parameter.name == "url"
]
ADDRESSES = [
    ("http://", "names no host", 2),
    ("ftp://x", "neither http:// nor https://", 2),
    ("http://[::1", "invalid ipv6 url", 2),
    ("http://127.0.0.1:99999", "port out of range", 2),
    ("http://a:secret@host", "holds a name or a password", 2),
    ("http://127.0.0.1:9/path", "goes on after the host", 2),
    ("http://a b", "holds a space", 2),
    ("http://a..b", "can't exist", 2),
    ("http://no-such-host.invalid", "there is no host no-such-host.invalid", 4),
]
"""Address, what is said of it, exit code."""


@pytest.mark.parametrize(
    ("words", "parameter", "url", "cause", "code"),
    [
        (words, parameter, *address)
        for words, parameter in TO_A_ROUTER
        for address in ADDRESSES
        if (words, address[2]) != (("privacy", "selfcheck"), 4)  # a router that does not run is one of its findings
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_router_s_address_is_refused_for_its_own_reason(
    words: tuple[str, ...],
    parameter: Any,
    url: str,
    cause: str,
    code: int,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (command,) = [each for program, known, each in COMMANDS if program == "router" and known == words]
    found, said = ended("router", [*words, *line_for(command, parameter, url)], monkeypatch, capfd)
    assert (found, cause in said) == (code, True), said


@pytest.mark.parametrize("token", ODD_TOKENS)
@pytest.mark.parametrize(
    ("variable", "line"),
    [("ROUTER_TOKEN", ["submit", "song.wav"]), ("HF_TOKEN", ["deploy", "space", "cpu", "--repo", "owner/name"])],
    ids=["ROUTER_TOKEN", "HF_TOKEN"],
)
def test_an_odd_token_is_refused_and_never_shown(
    variable: str,
    line: list[str],
    token: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, token)
    code, said = ended("router", line, monkeypatch, capfd)
    assert code == 2
    assert re.search("token", said)
    assert said.count("\n") == 1
    assert not token.strip() or token not in said


@pytest.mark.parametrize("field", sorted(WorkerSettings.model_fields))
def test_a_wrong_setting_of_a_worker_is_one_line_that_names_it(
    field: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASTERING_WORKER_PORT", "0")
    monkeypatch.setenv(f"MASTERING_WORKER_{field.upper()}", "\x1b?! wrong")
    code, said = ended("mastering.worker", [], monkeypatch, capfd)
    assert code == 2
    assert said.count("\n") == 1
    assert field in said.lower() or "MASTERING_WORKER_TLS" in said
    assert "wrong" not in said


@pytest.mark.parametrize(("program", "words", "command"), COMMANDS, ids=lambda each: str(each)[:40])
def test_a_mistyped_option_is_one_line(
    program: str,
    words: tuple[str, ...],
    command: Any,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, said = ended(program, [*words, "--no-such-option"], monkeypatch, capfd)
    assert (code, said.count("\n")) == (2, 1), said
    assert "--no-such-option" in said
