"""The command as a user types it: results, one-line errors, exit codes, clean JSON, no traces of a failed run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mastering.cli import EXIT_CODES
from mastering.contract import FaultCode
from tests import warm_start
from tests.mastering.sound import music, wav


def _run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return warm_start.run("mastering.cli:main", arguments, folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("songs")
    (place / "song.wav").write_bytes(wav(music(seconds=6)))
    return place


def test_every_fault_has_its_own_exit_code_in_the_help(folder: Path) -> None:
    assert set(EXIT_CODES) == set(FaultCode)
    assert len(set(EXIT_CODES.values())) == len(FaultCode)
    shown = " ".join(_run("--help", folder=folder).stdout.split())
    for code, number in EXIT_CODES.items():
        assert f"{number} {code.replace('_', ' ')}" in shown


def test_master_writes_every_output_and_shows_before_and_after(folder: Path) -> None:
    done = _run("master", "song.wav", "-o", "out.wav", "-o", "out.flac", folder=folder)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "before" in done.stdout
    assert "-14.0" in done.stdout
    assert soundfile.info(folder / "out.wav").subtype == "PCM_24"
    assert soundfile.info(folder / "out.flac").format == "FLAC"


def test_json_is_all_that_standard_output_holds(folder: Path) -> None:
    done = _run("master", "song.wav", "-o", "json.wav", "--json", folder=folder)
    report = json.loads(done.stdout)
    assert report["after"]["integrated_lufs"] == pytest.approx(-14, abs=0.1)
    for command in (("analyse", "song.wav"), ("plan", "song.wav"), ("compare", "song.wav", "song.wav"), ("presets",)):
        json.loads(_run(*command, "--json", folder=folder).stdout)


def test_the_format_option_wins_over_the_extension(folder: Path) -> None:
    assert _run("master", "song.wav", "-o", "sixteen.wav", "--format", "wav16", folder=folder).returncode == 0
    assert soundfile.info(folder / "sixteen.wav").subtype == "PCM_16"


def test_the_input_is_never_overwritten(folder: Path) -> None:
    before = (folder / "song.wav").read_bytes()
    (folder / "link.wav").symlink_to("song.wav")
    for output in ("song.wav", "link.wav"):
        done = _run("master", "song.wav", "-o", output, folder=folder)
        assert done.returncode == 1
        assert "overwrite the input" in done.stderr
    assert (folder / "song.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", FaultCode.EMPTY_FILE),
        (b"just text\n" * 20, FaultCode.UNSUPPORTED_FORMAT),
        (wav(music(seconds=2), subtype="PCM_24", container="FLAC")[:9000], FaultCode.TRUNCATED),
        (wav(np.full((2, 88_200), np.nan, np.float32)), FaultCode.NOT_FINITE),
        (wav(np.zeros((2, 88_200), np.float32), subtype="PCM_16"), FaultCode.SILENT),
    ],
    ids=["empty", "text", "cut off", "nan", "silence"],
)
def test_a_bad_file_is_one_line_its_own_exit_code_and_no_output(
    content: bytes, code: FaultCode, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    done = _run("master", "bad.wav", "-o", "out.wav", folder=tmp_path)
    assert done.returncode == EXIT_CODES[code]
    assert done.stdout == ""
    assert done.stderr.startswith("mastering: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.wav"]


def test_a_master_is_certified_by_two_meters_and_another_loudness_is_not(folder: Path) -> None:
    assert _run("master", "song.wav", "-o", "certified.wav", folder=folder).returncode == 0
    done = _run("certify", "certified.wav", "--json", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["holds"] is True
    lufs = [reading["integrated_lufs"] for reading in found["readings"].values()]
    assert lufs == pytest.approx([-14.0, -14.0], abs=0.1)
    refused = _run("certify", "certified.wav", "--target", "cd", folder=folder)
    assert refused.returncode == EXIT_CODES[FaultCode.BAD_MASTER]
    assert refused.stderr.count("\n") == 1


def test_a_users_own_presets_are_added_and_bad_ones_are_one_line(folder: Path) -> None:
    own = folder / "my.toml"
    own.write_text(
        '[targets.radio]\ntitle = "Radio"\nfor = "Our station"\nloudness_lufs = -18.0\nceiling_dbtp = -3.0\n'
        '[styles.dark]\ntitle = "Dark"\nfor = "Less top"\n'
        "board = [{ processor = 'HighShelfFilter', cutoff_frequency_hz = 4000, gain_db = -6.5, q = 0.6 }]\n"
    )
    done = _run(
        *("--presets", "my.toml", "master", "song.wav", "-o", "radio.wav", "-t", "radio", "-s", "dark", "--json"),
        folder=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["after"]["integrated_lufs"] == pytest.approx(-18.0, abs=0.1)
    assert report["after"]["true_peak_dbtp"] <= -3.0 + 0.01
    top = [band["mid_db"] for band in report["after"]["spectrum"] if band["centre_hz"] > 9_000]
    plain = [band["mid_db"] for band in report["before"]["spectrum"] if band["centre_hz"] > 9_000]
    middle = [
        next(b["mid_db"] for b in report[name]["spectrum"] if round(b["centre_hz"]) == 1000)
        for name in ("before", "after")
    ]
    assert (plain[0] - middle[0]) - (top[0] - middle[1]) == pytest.approx(0.6 * 6, abs=1.0)
    assert "radio" in _run("--presets", "my.toml", "presets", folder=folder).stdout
    for text in ("not toml [", "[targets.x]\ntitle = 3\n"):
        own.write_text(text)
        bad = _run("--presets", "my.toml", "presets", folder=folder)
        assert (bad.returncode, bad.stderr.count("\n")) == (EXIT_CODES[FaultCode.BAD_SETTINGS], 1)
    assert _run("--presets", "absent.toml", "presets", folder=folder).returncode == EXIT_CODES[FaultCode.BAD_SETTINGS]


def test_wrong_settings_name_the_option_and_the_choices(folder: Path) -> None:
    unknown = _run("master", "song.wav", "-o", "x.wav", "--target", "moon", folder=folder)
    assert unknown.returncode == EXIT_CODES[FaultCode.BAD_SETTINGS]
    assert "streaming" in unknown.stderr
    too_loud = _run("master", "song.wav", "-o", "x.wav", "--loudness", "3", folder=folder)
    assert too_loud.returncode == EXIT_CODES[FaultCode.BAD_SETTINGS]
    assert "--loudness" in too_loud.stderr
    assert _run("master", "song.wav", folder=folder).returncode == 2


def test_a_missing_input_and_an_output_nowhere_are_one_line(folder: Path) -> None:
    for arguments in (("absent.wav", "-o", "x.wav"), ("song.wav", "-o", "no/such/folder/x.wav")):
        done = _run("master", *arguments, folder=folder)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1


def test_demo_song_is_the_same_every_time_and_can_be_mastered(tmp_path: Path) -> None:
    assert _run("demo-song", "a.wav", folder=tmp_path).returncode == 0
    assert _run("demo-song", "b.wav", folder=tmp_path).returncode == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert soundfile.info(tmp_path / "a.wav").duration == pytest.approx(30.0)


def test_the_command_starts_without_torch_or_numpy(folder: Path) -> None:
    listing = "import sys, mastering.cli; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
