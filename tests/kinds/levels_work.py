"""The work of the kind `levels`, in a worker's or a Space's rendering process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
import soundfile

from tests.kinds.levels import LevelsOptions, LevelsReport


def run(
    source: BinaryIO,
    options: LevelsOptions,
    *,
    references: Sequence[BinaryIO],
    open_output: Callable[[str], BinaryIO],
    progress: Callable[[str, float], None],
) -> LevelsReport:
    progress("listen", 0.0)
    samples, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
    step = round(options.window_s * rate_hz)
    means = [float(np.mean(samples[at : at + step] ** 2)) for at in range(0, len(samples), step)]
    levels = [max(options.floor_dbfs, 10 * float(np.log10(mean or 1e-30))) for mean in means]
    progress("write", 0.5)
    if "json" in options.outputs:
        text = json.dumps({"window_s": options.window_s, "levels_dbfs": levels})
        open_output("json").write(text.encode())
    if "wav16" in options.outputs:
        soundfile.write(open_output("wav16"), samples, rate_hz, format="WAV", subtype="PCM_16")
    return LevelsReport(duration_s=len(samples) / rate_hz, windows=len(levels), loudest_dbfs=max(levels))
