"""What the options refuse, in their own words, and what the shell offers to complete them with."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from mastering.cli.options import settings_of
from mastering.contract import Fault, FaultCode
from tests import warm_start

OWN = """
[targets.radio]
title = "Radio"
for = "Our station"
loudness_lufs = -18.0
ceiling_dbtp = -3.0
[styles.dark]
title = "Dark"
for = "Less top"
"""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"loudness_lufs": -2.0, "ceiling_dbtp": 5.0},
            "--loudness must be at most -5 LUFS, not -2; --ceiling must be at most 0 dBTP, not 5.",
        ),
        ({"loudness_lufs": math.nan}, "--loudness must be a finite number, not nan."),
        ({"max_crest_loss_db": -1.0}, "--max-crest-loss must be at least 0 dB, not -1."),
        ({"rate_hz": 1}, "--rate must be at least 8000 Hz, not 1."),
        ({"reference_weights": (1.0, 0.0)}, "--weight must be more than 0, not 0."),
        ({"reference_weights": (1.0,) * 17}, "--weight must be given at most 16 times."),
    ],
)
def test_every_wrong_option_is_named_with_what_it_takes(asked: dict[str, object], said: str) -> None:
    with pytest.raises(Fault) as told:
        settings_of(**asked)
    assert (told.value.code, told.value.message) == (FaultCode.BAD_SETTINGS, said)


def test_an_unknown_target_and_style_are_said_together_with_the_choices_and_the_rest() -> None:
    with pytest.raises(Fault) as told:
        settings_of(target="Moon!", style="x" * 5000, amount_percent=101.0)
    target, style, amount = told.value.message.split("; ")
    assert target.startswith("--target: there is no target 'Moon!', choose one of aes, ")
    assert style.startswith(f"--style: there is no style '{'x' * 40}', choose one of bright, ")
    assert amount == "--amount must be at most 100 percent, not 101."


def _completions(folder: Path, *words: str) -> list[str]:
    """What bash is offered for the last word."""
    line = {"_MASTERING_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = warm_start.run("mastering.cli:main", (), {**os.environ, **line}, folder)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_names_of_targets_and_styles_also_those_of_ones_own_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(OWN)
    (tmp_path / "bad.toml").write_text("[")
    assert _completions(tmp_path, "mastering", "master", "a.wav", "--target", "strea") == ["streaming"]
    own = ("mastering", "--presets", "my.toml")
    assert _completions(tmp_path, *own, "album", "-t", "ra") == ["radio"]
    assert _completions(tmp_path, *own, "plan", "-s", "da") == ["dark"]
    assert _completions(tmp_path, "mastering", "--presets", "bad.toml", "plan", "-s", "da") == []
