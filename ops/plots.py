"""Writes docs/plots: the report's own plots of the demo song, mastered after itself made darker. `--check` compares.

A check lets points be off by 2 pixels (of 720 by 300): drawings are for eyes, and bits are compared elsewhere.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

from mastering.contract import Settings
from mastering.engine import pipeline
from mastering.engine.demo import demo_song
from mastering.report.page import plots
from mastering.report.plots import svg

FOLDER = Path(__file__).parent.parent / "docs" / "plots"
_NAMES = ("spectrum", "loudness", "gain-reduction", "cost-of-loudness")
_RATE_HZ = 44_100
_TOLERANCE_PX = 2.0
_NUMBER = re.compile(r"\d+\.\d+")


def drawn() -> dict[str, str]:
    """File name → SVG of every plot in docs/mastering.md."""
    song = demo_song(_RATE_HZ)
    darker = signal.sosfilt(signal.butter(1, 2500, fs=_RATE_HZ, output="sos"), song, axis=1)
    report = pipeline.master(
        io.BytesIO(_wav(song)),
        Settings(target="cd", amount_percent=60),
        references=[io.BytesIO(_wav(darker))],
        open_output=lambda kind: io.BytesIO(),
        with_costs=True,
    )
    made = [svg(plot, alone=True) + "\n" for plot in plots(report)]
    return {f"{name}.svg": text for name, text in zip(_NAMES, made, strict=True)}


def _wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, _RATE_HZ, format="WAV", subtype="PCM_24")
    return file.getvalue()


def stale() -> list[str]:
    """Names of the plots whose file is not what the engine draws now."""
    return [name for name, text in drawn().items() if not _same(FOLDER / name, text)]


def _same(path: Path, text: str) -> bool:
    """The same but for points that rounding, here or on another machine, has moved by a little."""
    if not path.exists():
        return False
    (old_words, old), (new_words, new) = (_text_and_numbers(drawing) for drawing in (path.read_text("utf-8"), text))
    return old_words == new_words and np.allclose(old, new, rtol=0, atol=_TOLERANCE_PX)


def _text_and_numbers(drawing: str) -> tuple[list[str], list[float]]:
    return _NUMBER.split(drawing), [float(number) for number in _NUMBER.findall(drawing)]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        found = stale()
        if found:
            print(f"These plots are stale: {', '.join(found)}. Run 'make plots'.", file=sys.stderr)
        return 1 if found else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in drawn().items():
        (FOLDER / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
