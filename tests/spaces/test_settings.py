"""Settings of a Space that can't be: one line that names the variable and shows no value."""

from __future__ import annotations

import pytest

from mastering_space import server
from mastering_space.settings import SpaceSettings, WrongSettingError, read_settings

WRONG = "\x1b?! wrong"


@pytest.mark.parametrize("field", sorted(set(SpaceSettings.model_fields) - {"key"}))  # a key may be any text
def test_a_wrong_value_is_one_line_that_names_the_variable_and_not_the_value(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MASTERING_SPACE_{field.upper()}", WRONG)
    with pytest.raises(WrongSettingError) as told:
        read_settings()
    assert f"MASTERING_SPACE_{field.upper()}: " in str(told.value)
    assert "wrong" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_space_with_one_ends_with_that_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "forbid_core_dumps", lambda: None)  # it would hold for the tests' process too
    monkeypatch.setenv("MASTERING_SPACE_PLACES", "many")
    with pytest.raises(SystemExit) as ended:
        server.serve("cpu")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert (told.startswith("MASTERING_SPACE_PLACES: "), told.count("\n")) == (True, 1)
