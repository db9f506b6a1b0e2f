"""What refining a plan brings and costs, on the seven signals of the quality group, one thread.

Each mix is mastered three times to the same reference, at the loudness and the ceiling that Matchering came out with:
by the closed form, refined, and by Matchering 2.0.6. The distance is that of `dsp.features` between whole files
(spectrum, levels, crest, width), read by the meters: the fit's own trials have no part in it.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import soundfile

from mastering.contract import Effort, Settings
from mastering.dsp.features import Layout, distance_db, weights
from mastering.dsp.stream import stored
from mastering.engine import analyse, pipeline, plan, refine, trial
from ops.bench import quality
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, Samples, as_wav, lasting, song


def measure() -> list[BenchmarkLine]:
    lines = _costs()
    with tempfile.TemporaryDirectory() as folder:
        for name in quality.prepared(Path(folder)):
            lines += _compared(name, Path(folder))
    return lines


def _compared(name: str, folder: Path) -> list[BenchmarkLine]:
    reference = quality.samples(folder / f"{name}-reference.wav")
    peer = quality.samples(folder / f"{name}-peer.wav")
    theirs = quality.reading(peer, reference)
    settings = Settings(
        amount_percent=100,
        loudness_lufs=max(-36, min(-5, theirs.lufs)),
        ceiling_dbtp=min(0.0, theirs.true_peak_dbtp),
    )
    quick = _mastered(folder, name, settings)
    fitted = _mastered(folder, name, settings.model_copy(update={"effort": Effort.FIT}))
    near, before, others = (_distance_db(each, reference) for each in (fitted, quick, peer))
    ours, matchering = quality.reading(fitted, reference), "Matchering 2.0.6"
    return [
        BenchmarkLine(
            f"{name}, feature distance, closed form beside it", near, "dB", "lower", before, "closed form", before
        ),
        BenchmarkLine(
            f"{name}, feature distance, Matchering beside it", near, "dB", "lower", others, matchering, others
        ),
        BenchmarkLine(
            f"{name}, mid spectrum distance", ours.mid_db, "dB", "lower", theirs.mid_db, matchering, theirs.mid_db
        ),
        BenchmarkLine(
            f"{name}, side spectrum distance", ours.side_db, "dB", "lower", theirs.side_db, matchering, theirs.side_db
        ),
        BenchmarkLine(f"{name}, short-term crest", ours.crest_db, "dB", "higher", None, matchering, theirs.crest_db),
    ]


def _mastered(folder: Path, name: str, settings: Settings) -> Samples:
    out = io.BytesIO()
    with (folder / f"{name}.wav").open("rb") as source, (folder / f"{name}-reference.wav").open("rb") as reference:
        pipeline.master(source, settings, references=[reference], open_output=lambda kind: out)
    return quality.samples(io.BytesIO(out.getvalue()))


def _distance_db(master: Samples, reference: Samples) -> float:
    one, other = (trial.read_recording(stored(part.copy(), RATE_HZ)) for part in (master, reference))
    goal = other.features(other.lufs)
    return distance_db(one.features(one.lufs), goal, weights(Layout(RATE_HZ), goal, goal))


def _costs() -> list[BenchmarkLine]:
    """Of four minutes: one iteration, and the whole refinement over decoding and encoding the song."""
    from mastering import fit

    samples = lasting(song("vibe_ace"), 240)
    audio = stored(samples.copy(), RATE_HZ)
    heard = analyse.analyse(audio.read(), RATE_HZ, audio.channels)
    chosen, _ = plan.tone_plan(heard.measurements, heard.power, Settings(style="punchy"))
    counted: list[float] = []
    started = time.process_time()
    refine.refined(chosen, audio, heard, tick=lambda part: counted.append(time.process_time()))
    whole_s = time.process_time() - started
    iteration_s = statistics.median(b - a for a, b in pairwise(counted))
    floor_s = _floor_s(as_wav(samples))
    name = fit.torch_device_name()
    device = None if name == "cpu" else name
    return [
        BenchmarkLine(f"one iteration, 4 minutes, {name}", iteration_s * 1000, "ms", "lower", 110.0, device=device),
        BenchmarkLine(f"refinement, 4 minutes, {name}", whole_s / floor_s, "x floor", "lower", device=device),
    ]


def _floor_s(data: bytes) -> float:
    started = time.process_time()
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32")
    soundfile.write(io.BytesIO(), samples, rate_hz, format="WAV", subtype="PCM_24")
    return time.process_time() - started
