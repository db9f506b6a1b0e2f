"""Settings that are wrong or misspelt: one line that names the cause, for every setting and every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli.main import app
from router.core.command_error import CommandError
from router.core.settings import RouterSettings, misspelt_variables, read_settings

WRONG = "\x1b?! wrong"
FREE_TEXT = {
    "pepper", "worker_secret", "worker_authority", "catalogue", "ram_dir", "state_dir", "log_dir", "spool_dir",
}  # fmt: skip
"""Secrets of any bytes, files and folders: what is wrong with them is found where they are used."""
COMMANDS = (
    ["serve"],
    ["run"],
    ["doctor"],
    ["accounts", "rotate-pepper"],
    ["accounts", "retire-peppers"],
    ["privacy", "selfcheck", "--no-canary"],
)


@pytest.mark.parametrize("field", sorted(set(RouterSettings.model_fields) - FREE_TEXT))
def test_a_wrong_value_is_one_line_that_names_the_setting_and_not_the_value(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ROUTER_{field.upper()}", WRONG)
    with pytest.raises(CommandError) as told:
        read_settings()
    assert told.value.exit_code == 2
    sentence = str(told.value)
    assert field in sentence
    assert "wrong" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("variable", ["ROUTER_WORKERS", "ROUTER_MAX_BYTES"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_so_in_one_line(
    command: list[str], variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, WRONG)
    for folder in ("STATE", "RAM", "SPOOL"):
        monkeypatch.setenv(f"ROUTER_{folder}_DIR", str(tmp_path / folder))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"router: setting {variable.removeprefix('ROUTER_').lower()}")
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_variable_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    sentences = misspelt_variables(["ROUTER_MAX_BYTE", "ROUTER_XYZZY_PLUGH", "ROUTER_TOKEN", "PATH", "router_port"])
    assert sentences == [
        "ROUTER_MAX_BYTE is no setting and changes nothing; did you mean ROUTER_MAX_BYTES?",
        "ROUTER_XYZZY_PLUGH is no setting and changes nothing; see docs/settings.md.",
    ]


def test_a_misspelt_variable_is_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ROUTER_MAX_BYTE", WRONG)
    read_settings()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "did you mean ROUTER_MAX_BYTES?" in told
    assert "wrong" not in told
