"""The whole trip of one song: decode, analyse, plan, render, encode, verify. One call, used by command and worker.

Nothing but `source`, `references` and what `open_output` returns is read or written; songs of more than ten minutes
are decoded once per pass instead of being kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from mastering import analyse, files, plan, presets, render, verify
from mastering.contract import ENGINE_VERSION, Measurements, OutputFormat, Plan, Report, Settings, Stage
from mastering.demo import demo_song
from mastering.dsp.resample import resampled
from mastering.dsp.stream import Audio, stored

Progress = Callable[[Stage, float], None]

KEEP_SAMPLES = 2 * 48_000 * 60 * 11
_CODEC_ROUNDS = 4
_CODEC_SLACK_FRAMES = 8192

_SHARES = {
    Stage.DECODE: 0.15,
    Stage.ANALYSE: 0.2,
    Stage.PLAN: 0.0,
    Stage.RENDER: 0.3,
    Stage.ENCODE: 0.2,
    Stage.VERIFY: 0.15,
}


class _Meter:
    """Turns frames done in a stage into a fraction of the whole that never goes back."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = Stage.DECODE
        self._done = 0.0
        self._start = self._share = self._frames = 0.0

    def begin(self, stage: Stage, frames: int, share: float = 1.0) -> Callable[[int], None]:
        """Start `share` of a stage that will report `frames` frames; returns what to call for each block."""
        self._done = self._start = self._start + self._share
        self._stage, self._frames, self._share = stage, 0.0, _SHARES[stage] * share
        self._progress(stage, min(1.0, self._done))

        def tick(count: int) -> None:
            self._frames += count
            part = min(1.0, self._frames / frames) if frames else 1.0
            self._done = max(self._done, self._start + part * self._share)
            self._progress(stage, min(1.0, self._done))

        return tick

    def end(self) -> None:
        self._progress(self._stage, 1.0)


def _silent(stage: Stage, fraction: float) -> None:
    """Progress that nobody watches."""


def master(
    source: BinaryIO,
    settings: Settings,
    *,
    references: Sequence[BinaryIO] = (),
    open_output: Callable[[OutputFormat], BinaryIO],
    progress: Progress = _silent,
) -> Report:
    """Master `source` into every format of `settings.outputs`. Raises Fault; whatever `progress` raises ends it too.

    `open_output` returns an empty binary file that can be written, read and sought (a memory file will do); it is
    called once per format, and the file is left open, at its start.
    """
    presets.check(settings)
    meter = _Meter(progress)
    audio, before, flags = _listen(source, settings, meter)
    song, chosen = _decide(audio, before, settings, meter)
    chosen, after = _deliver(song, chosen, open_output, meter)
    meter.end()
    return Report(
        engine_version=ENGINE_VERSION, before=before.measurements, after=after, plan=chosen, flags=tuple(flags)
    )


def make_plan(source: BinaryIO, settings: Settings, *, progress: Progress = _silent) -> Plan:
    """What `master` would do with `source`, without doing it."""
    presets.check(settings)
    meter = _Meter(progress)
    audio, before, _ = _listen(source, settings, meter)
    return _decide(audio, before, settings, meter)[1]


def measure(source: BinaryIO, *, progress: Progress = _silent) -> Measurements:
    """The measurements of `source` alone."""
    return _listen(source, Settings(), _Meter(progress))[1].measurements


def write_demo_song(target: BinaryIO) -> None:
    """Write half a minute of synthesised music as 24-bit WAV."""
    song = stored(demo_song(44_100), 44_100)
    files.encode(song, OutputFormat.WAV24, target, seed=0, tick=lambda frames: None)


def _listen(source: BinaryIO, settings: Settings, meter: _Meter) -> tuple[Audio, analyse.Analysis, list[str]]:
    recording = files.open_recording(source)
    decoding = meter.begin(Stage.DECODE, recording.promised_frames or 0)
    audio = files.load(recording, keep_samples=KEEP_SAMPLES, tick=decoding)
    audio = resampled(audio, settings.rate_hz or audio.rate_hz)
    before = analyse.analyse(audio, tick=meter.begin(Stage.ANALYSE, audio.frames))
    return audio, before, analyse.remarks(before.measurements, lossy=recording.lossy)


def _decide(audio: Audio, before: analyse.Analysis, settings: Settings, meter: _Meter) -> tuple[render.Toned, Plan]:
    meter.begin(Stage.PLAN, 0)
    chosen = plan.tone_plan(before.measurements, settings)
    song = render.toned(audio, chosen, above=0.0, tick=meter.begin(Stage.RENDER, audio.frames, 0.7))
    return song, _with_loudness(song, chosen, chosen.ceiling_dbtp, 0.0)


def _with_loudness(song: render.Toned, chosen: Plan, ceiling_dbtp: float, bias_lu: float) -> Plan:
    """The plan with the gain that brings the limited song to the loudness asked for, or as near as it can come.

    `bias_lu` is by how much the last master came out louder than the solver had reckoned.
    """
    wished = plan.loudness_lufs(chosen.settings)
    limits, gain_db, reached = render.solve_with_release(song, ceiling_dbtp, wished - bias_lu)
    return plan.with_loudness(chosen, limits, gain_db, wished_lufs=wished, reached_lufs=reached + bias_lu)


def _deliver(
    song: render.Toned, chosen: Plan, open_output: Callable[[OutputFormat], BinaryIO], meter: _Meter
) -> tuple[Plan, Measurements]:
    outputs = sorted(chosen.settings.outputs, key=files.is_lossy)
    share = 1 / len(outputs)
    readings = []
    for kind in outputs:
        target = open_output(kind)
        rewritten, after = _write(song, chosen, kind, target, meter, share)
        readings.append(after)
        chosen = rewritten if kind is outputs[0] else chosen
        target.seek(0)
    return chosen, readings[0]


def _write(
    song: render.Toned, chosen: Plan, kind: OutputFormat, target: BinaryIO, meter: _Meter, share: float
) -> tuple[Plan, Measurements]:
    """Render, encode and read back one format, nudging loudness, and the ceiling of a lossy one, until it holds."""
    ceiling_dbtp, inner_ceiling_dbtp, bias_lu = chosen.ceiling_dbtp, chosen.ceiling_dbtp, 0.0
    for _ in range(_CODEC_ROUNDS):
        guarding = meter.begin(Stage.RENDER, 2 * song.audio.frames, 0.3 * share)
        curve = render.guarded_curve(song, render.limiter_of(chosen), render.gain_db_of(chosen), tick=guarding)
        master = render.limited(song.audio, curve)
        encoding = meter.begin(Stage.ENCODE, master.frames, share)
        files.encode(master, kind, target, seed=chosen.seed, tick=encoding)
        after = _read_back(target, meter, share)
        found = _misses(after, chosen, master, kind, ceiling_dbtp)
        share = 0.0
        if not found:
            return chosen, after
        inner_ceiling_dbtp -= _excess(after, ceiling_dbtp, kind)
        bias_lu += (after.integrated_lufs or chosen.loudness_lufs) - chosen.loudness_lufs
        chosen = _with_loudness(song, chosen, inner_ceiling_dbtp, bias_lu)
    raise verify.bad_master(found)


def _misses(after: Measurements, chosen: Plan, master: Audio, kind: OutputFormat, ceiling_dbtp: float) -> list[str]:
    lossy = files.is_lossy(kind)
    return verify.misses(
        after,
        loudness_lufs=chosen.loudness_lufs,
        ceiling_dbtp=ceiling_dbtp,
        frames=round(master.frames * after.rate_hz / master.rate_hz),
        slack_frames=_CODEC_SLACK_FRAMES if lossy else 0,
    )


def _excess(after: Measurements, ceiling_dbtp: float, kind: OutputFormat) -> float:
    """How far a lossy coder overshot: the limiter's ceiling for it goes down by that."""
    over = after.true_peak_dbtp - ceiling_dbtp
    return over + 0.05 if over > 0 and files.is_lossy(kind) else 0.0


def _read_back(target: BinaryIO, meter: _Meter, share: float) -> Measurements:
    recording = files.open_recording(target)
    frames = recording.promised_frames or 0
    ticking = meter.begin(Stage.VERIFY, 2 * frames, share)
    audio = files.load(recording, keep_samples=0, tick=ticking)
    return analyse.analyse(audio, tick=ticking).measurements
