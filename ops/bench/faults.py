"""What masters got wrong once, each with its right value as the limit, by meters that share nothing with the engine.

Synthesised material, and the real songs where they can be found. "Before" is what this script read of masters by the
engine of the commit that the lines name, kept in faults-before.json beside it: `python -m ops.bench.faults --before
COMMIT > ops/bench/faults-before.json`, run in a checkout of that commit with this script put into it. No number there
means that there was no master. Lines of refined masters need torch, those that say sox or ffmpeg the programs; what is
missing is said and left out.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from mastering.contract import Effort, Fault, FaultCode, Report, Settings
from mastering.contract.presets import presets
from mastering.engine import pipeline
from ops.bench import _fault_songs as songs
from ops.bench import _independent_meters as meters
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, Samples

_BEFORE = Path(__file__).with_name("faults-before.json")
_BASS_HZ, _LOW_HZ = (25.0, 60.0), (60.0, 110.0)
_NEXT_TO_NOTHING_DB = 0.1
"""A distance to a reference below this counts as this: 5 % of next to nothing is nothing."""


@dataclass(frozen=True)
class _Mastered:
    """A song and its master; what refused it where there is none."""

    source: Samples
    master: Samples
    path: Path
    report: Report | None
    refusal: str = ""

    def says(self, *words: str) -> bool:
        """Whether the report has a sentence with one of the words and a number, or the refusal a sentence with one."""
        if self.report is None:
            return any(word in self.refusal for word in words)
        sentences = [*self.report.flags, *(step.reason for step in self.report.plan.steps)]
        return any(word in sentence and re.search(r"\d", sentence) for sentence in sentences for word in words)


@dataclass(frozen=True)
class _Figure:
    """One thing that is read of a master."""

    name: str
    read: Callable[[_Mastered], float]
    limit: float | None
    unit: str = "dB"
    better: Literal["lower", "higher"] = "lower"
    of_refused: bool = False
    """Whether it can be told without a master."""

    def line(self, case: str, made: _Mastered) -> BenchmarkLine:
        value = self.read(made) if made.report or self.of_refused else float("nan")
        return BenchmarkLine(f"{case}, {self.name}", value, self.unit, self.better, self.limit)


@dataclass(frozen=True)
class _Case:
    """A song that is mastered by some settings, and what is read of its master."""

    name: str
    song: Samples
    settings: Settings
    figures: Sequence[_Figure]
    reference: Samples | None = None


_OF_ALL = (
    ("loudness error by pyloudnorm", "LU", 0.1),
    ("loudness error by ffmpeg", "LU", 0.15),
    ("true peak over the ceiling by ffmpeg", "dB", 0.1),
)
"""What is read of every master; ffmpeg gives one decimal."""
_DELIVERED = _Figure("refused", lambda made: float(made.report is None), 0.0, "masters", of_refused=True)


def measure() -> list[BenchmarkLine]:
    before = json.loads(_BEFORE.read_text("utf-8"))
    figures: dict[str, float | None] = before["figures"]
    peer = f"before, {before['commit']}"
    return [
        replace(line, peer=peer, peer_value=figures[line.name]) if line.name in figures else line for line in _lines()
    ]


def _lines() -> list[BenchmarkLine]:
    missing = meters.missing_programs() + [name for name in ("torch",) if find_spec(name) is None]
    if missing:
        print(f"faults: without {', '.join(missing)}; lines that need it are left out.", file=sys.stderr)
    lines, delivered = [], []
    with tempfile.TemporaryDirectory() as folder:
        for case in _cases():
            made = _mastered(case, Path(folder))
            lines += [each.line(case.name, made) for each in case.figures if not _needs(each, missing)]
            if made.report is not None:
                delivered.append(_targets_missed(made, missing))
        lines += _clicks_in_every_style(Path(folder))
        lines += [] if "torch" in missing else _far_fits(Path(folder))
    return lines + [
        BenchmarkLine(f"all of these, worst {name}", max(values), unit, "lower", limit)
        for (name, unit, limit), values in zip(_OF_ALL, zip(*delivered, strict=True), strict=True)
        if not np.isnan(max(values))
    ]


def _needs(figure: _Figure, missing: Sequence[str]) -> bool:
    return any(program in figure.name for program in missing)


def _cases() -> Iterator[_Case]:
    club = Settings(target="club")
    yield _Case("sparse solo at club", songs.sparse_solo(), club, _driven("noise", 24.0))
    yield _Case("wide in range at club", songs.wide_in_range(), club, _pumping())
    for name in ("hungarian_dance_5", "sugar_plum_fairy"):
        if (song := songs.real_song(name)) is not None:
            yield _Case(f"{name} at club", song, club, _pumping())
    if (song := songs.real_song("solo_trumpet_f_90bpm")) is not None:
        yield _Case("solo_trumpet at club", song, club, [*_driven("noise", 24.0), *_offset()[1:]])
    yield _Case("brass at club", songs.brass(), club, _offset())
    for target in ("cd", "club"):
        yield _Case(f"drum and bass at {target}", songs.drum_and_bass(), Settings(target=target), [_DELIVERED])
    plucked = songs.plucked(8.0)
    left, right = plucked
    for name, song in (("right inverted", np.stack([left, -right])), ("side only", np.stack([left, -left]))):
        for target in ("streaming", "club"):
            yield _Case(f"{name} at {target}", song, Settings(target=target), _bass_kept())
    yield _Case("left only", np.stack([left, 0 * left]), Settings(), _one_sided())
    yield from _far_references()
    yield _Case("one pop in a quiet song", songs.one_pop(), Settings(), _pop())
    riddle = _Figure("refused without the cause", _refused_with_a_riddle, 0.0, "masters", of_refused=True)
    yield _Case("all samples up to 17,500", plucked * np.float32(17_500), Settings(), [_DELIVERED])
    yield _Case("one sample of 17,500", songs.one_huge_sample(), Settings(), [riddle])
    yield _Case("silence with a click", songs.silence_with_a_click(), Settings(), [riddle])


def _mastered(case: _Case, folder: Path) -> _Mastered:
    path, out = folder / "master.wav", io.BytesIO()
    references = [] if case.reference is None else [_float_wav(case.reference)]
    try:
        report = pipeline.master(
            _float_wav(case.song), case.settings, references=references, open_output=lambda kind: out
        )
    except Fault as fault:
        return _Mastered(case.song, case.song * 0, path, None, f"{fault.code.value}: {fault}")
    path.write_bytes(out.getvalue())
    master, _ = soundfile.read(path, dtype="float64", always_2d=True)
    return _Mastered(case.song, np.ascontiguousarray(master.T), path, report)


def _float_wav(samples: Samples) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples.T, RATE_HZ, format="WAV", subtype="FLOAT")
    file.seek(0)
    return file


def _targets_missed(made: _Mastered, missing: Sequence[str]) -> tuple[float, float, float]:
    """By how much a master misses its own plan's loudness (pyloudnorm, ffmpeg) and passes its ceiling (ffmpeg)."""
    assert made.report is not None  # noqa: S101 - the caller has seen it
    plan, nothing = made.report.plan, float("nan")
    lufs, peak_dbtp = (nothing, nothing) if "ffmpeg" in missing else meters.ebur128(made.path)
    wrong = (abs(meters.lufs(made.master) - plan.loudness_lufs), abs(lufs - plan.loudness_lufs))
    return (*wrong, peak_dbtp - plan.ceiling_dbtp)


def _driven(what: str, most_lifted_db: float) -> list[_Figure]:
    return [
        _DELIVERED,
        _Figure(f"{what} lifted", _noise_lifted_db, most_lifted_db),
        _Figure("reduction, most", lambda made: float(meters.reduction_db(made.source, made.master).max()), 12.0),
        _Figure("said", lambda made: made.says("noise", "and not ", "the most that", "short of"), 1.0, "", "higher"),
    ]


def _noise_lifted_db(made: _Mastered) -> float:
    return meters.quietest_db(made.master) - meters.quietest_db(made.source)


def _pumping() -> list[_Figure]:
    def reduction(percent: float, made: _Mastered) -> float:
        return float(np.percentile(meters.reduction_db(made.source, made.master), percent))

    return [
        _DELIVERED,
        _Figure("reduction, 99th percentile", partial(reduction, 99.0), 8.0),
        _Figure("reduction, most", partial(reduction, 100.0), 12.0),
        _Figure("first second below the song's usual gain", _first_second_low_db, 2.0),
    ]


def _first_second_low_db(made: _Mastered) -> float:
    gains = meters.gain_db(made.source, made.master)
    return float(np.nanmedian(gains) - np.nanmean(gains[:50])) if np.isfinite(gains[:50]).any() else 0.0


def _offset() -> list[_Figure]:
    return [
        _DELIVERED,
        _Figure("offset by NumPy", lambda made: float(np.abs(made.master.mean(axis=1)).max()), 0.0005, ""),
        _Figure("offset by sox", lambda made: meters.sox_offset(made.path), 0.0005, ""),
    ]


def _bass_kept() -> list[_Figure]:
    def lost(band_hz: tuple[float, float], made: _Mastered) -> float:
        return meters.band_lost_db(made.source, made.master, *band_hz)

    return [
        _DELIVERED,
        _Figure("lost from 25 to 60 Hz", partial(lost, _BASS_HZ), 3.0),
        _Figure("lost from 60 to 110 Hz", partial(lost, _LOW_HZ), 3.0),
    ]


def _one_sided() -> list[_Figure]:
    def right_db(made: _Mastered) -> float:
        return max(-140.0, meters.level_db(made.master[1:]) - meters.level_db(made.master[:1]))

    def left_lost_db(made: _Mastered) -> float:
        return meters.band_lost_db(made.source[:1], made.master[:1], *_BASS_HZ)

    return [
        _DELIVERED,
        _Figure("right over left", right_db, -100.0),
        _Figure("left, lost from 25 to 60 Hz", left_lost_db, 3.0),
    ]


def _far_references() -> Iterator[_Case]:
    """At the default amount, by which no band should move more than 6 dB."""
    plucked = songs.plucked(8.0)
    pairs: list[tuple[str, Samples | None, Samples | None]] = [
        ("plucked to itself 6 dB an octave darker", plucked, songs.tilted(plucked, -6.0)),
        ("plucked to itself 6 dB an octave brighter", plucked, songs.tilted(plucked, 6.0)),
        ("drum and bass to a sparse solo", songs.drum_and_bass(8.0), songs.sparse_solo()),
        ("vibe_ace to speech", songs.real_song("vibe_ace"), songs.real_song("speech_austen")),
        ("hungarian_dance_5 to vibe_ace", songs.real_song("hungarian_dance_5"), songs.real_song("vibe_ace")),
        ("solo_trumpet to vibe_ace", songs.real_song("solo_trumpet_f_90bpm"), songs.real_song("vibe_ace")),
    ]
    for name, song, reference in pairs:
        if song is not None and reference is not None:
            yield _Case(f"far reference, {name}", song, Settings(), _moved(), reference)


def _moved() -> list[_Figure]:
    def span_db(made: _Mastered) -> float:
        return float(np.ptp((moved := meters.moved_db(made.source, made.master))[np.isfinite(moved)]))

    return [
        _DELIVERED,
        _Figure("from the band most cut to the one most lifted", span_db, 13.0),
    ]


def _pop() -> list[_Figure]:
    def down_db(after_s: float, made: _Mastered) -> float:
        gains = meters.gain_db(made.source, made.master)
        return float(np.nanmedian(gains) - gains[round((songs.POP_S + after_s) / 0.02)])

    return [
        _DELIVERED,
        _Figure("down 0.1 s after it", partial(down_db, 0.1), 3.0),
        _Figure("down 0.4 s after it", partial(down_db, 0.4), 0.5),
    ]


def _refused_with_a_riddle(made: _Mastered) -> float:
    """1 for a refusal by a failed check, whose figure says nothing of what is wrong with the song."""
    return float(made.refusal.startswith(FaultCode.BAD_MASTER.value))


def _clicks_in_every_style(folder: Path) -> list[BenchmarkLine]:
    """Clicks of full scale over pink noise at −80 dBFS, one sample and three long, streaming, no reference."""
    clicks, styles = (songs.clicks(30.0, 1), songs.clicks(10.0, 3)), presets().styles
    cases = [_Case("", song, Settings(style=style), []) for song in clicks for style in styles]
    made = [_mastered(case, folder) for case in cases]
    masters = [each for each in made if each.report is not None]
    before = [_before_clicks_db(each.source, each.master) for each in masters]
    lifted = [_noise_lifted_db(each) for each in masters]
    return [
        BenchmarkLine(f"clicks over noise, refused of {len(made)}", len(made) - len(masters), "masters", "lower", 0.0),
        BenchmarkLine(
            "clicks over noise, 20 to 1 ms before a click over the noise",
            max(before, default=np.nan),
            "dB",
            "lower",
            3.0,
        ),
        BenchmarkLine("clicks over noise, noise lifted", max(lifted, default=np.nan), "dB", "lower", 24.0),
    ]


def _before_clicks_db(source: Samples, master: Samples) -> float:
    """The loudest quarter of the time from 20 to 1 ms before any click, against the noise, beyond the source's own."""

    def over_noise_db(sound: Samples) -> np.ndarray:
        ms = RATE_HZ / 1000
        clicks = songs.click_frames(sound.shape[1])
        noise_db = meters.level_db(
            np.concatenate([sound[:, c - round(400 * ms) : c - round(100 * ms)] for c in clicks], 1)
        )
        edges = [round(edge * ms) for edge in np.linspace(20, 1, 5)]
        spans = list(pairwise(edges))
        return np.array([[meters.level_db(sound[:, c - a : c - b]) - noise_db for a, b in spans] for c in clicks])

    return float((over_noise_db(master) - over_noise_db(source)).max())


def _far_fits(folder: Path) -> list[BenchmarkLine]:
    """Refined masters against those of the closed form that they start from: no measure more than 5 % worse."""
    plucked = songs.plucked(20.0)
    pairs: list[tuple[str, Samples | None, Samples | None]] = [
        ("wide in range to drum and bass", songs.wide_in_range(), songs.drum_and_bass()),
        ("plucked to brass", plucked, songs.brass()),
        ("hungarian_dance_5 to vibe_ace", songs.real_song("hungarian_dance_5"), songs.real_song("vibe_ace")),
        ("vibe_ace to sugar_plum_fairy", songs.real_song("vibe_ace"), songs.real_song("sugar_plum_fairy")),
        ("sugar_plum_fairy to speech", songs.real_song("sugar_plum_fairy"), songs.real_song("speech_austen")),
    ]
    lines = []
    for name, song, reference in pairs:
        if song is None or reference is None:
            continue
        quick = _mastered(_Case("", song, Settings(amount_percent=100), [], reference), folder)
        fitted = _mastered(_Case("", song, Settings(amount_percent=100, effort=Effort.FIT), [], reference), folder)
        worst = _worst_growth_percent(quick.master, fitted.master, reference)
        lines.append(BenchmarkLine(f"far fit, {name}, worst measure over its start", worst, "%", "lower", 5.0))
    return lines


def _worst_growth_percent(before: Samples, after: Samples, reference: Samples) -> float:
    goal, *masters = (meters.character(sound) for sound in (reference, before, after))
    floor = goal["mid"].max() - 70

    def distance_db(of: dict[str, np.ndarray], name: str) -> float:
        return max(
            _NEXT_TO_NOTHING_DB, float(np.abs(np.maximum(of[name], floor) - np.maximum(goal[name], floor)).mean())
        )

    return max(100 * (distance_db(masters[1], name) / distance_db(masters[0], name) - 1) for name in goal)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.faults", description="Print the figures as JSON.")
    parser.add_argument("--before", metavar="COMMIT", required=True, help="the commit that is checked out")
    commit = parser.parse_args().before
    figures = {line.name: None if np.isnan(line.value) else round(line.value, 4) for line in _lines()}
    print(json.dumps({"commit": commit, "figures": figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
