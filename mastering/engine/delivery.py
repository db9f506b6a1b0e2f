"""One shaped song into every format asked for: encode, decode again, measure, and correct until the format holds.

Formats are made side by side, one thread to a core: the coders let go of the interpreter. The first lossless one
decides for the others, so that a gain corrected for it is theirs too; a lossy one starts from the plan, and only its
own ceiling falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

import numpy as np

from mastering.audio import encode, tags
from mastering.contract import CODER_PADDING_FRAMES, MasterCheck, Measurements, OutputFormat, Plan, Stage
from mastering.dsp import loudness
from mastering.dsp.limiter import Curve
from mastering.dsp.stream import Audio
from mastering.dsp.threads import ahead, cores
from mastering.engine import codec_trial, plan, render, steps, verify
from mastering.engine.progress import Halted, Lane, Meter, Tick
from mastering.engine.read_back import ReadBack, read_back, samples_digest

_LOUDNESS_ROUNDS = 3
_LIMITED_LU = 0.3
"""Of loudness taken by the limiter; what the solver may be off by is a part of it."""
_SETTLED_LU = 0.03
_CODEC_ROUNDS = 6
"""Encodings of one format before it is given up."""
_FIRST_MARGIN_DB = 0.05
"""Beyond what a coder overshot, doubled each round: every encoding errs anew, and rounds must come to an end."""
_TRIAL_ROUNDS = 8
"""Encodings of the excerpt before the whole song is encoded."""
_TRIAL_RESERVE_DB, _TRIAL_RESERVE_SHARE = 0.04, 0.3
"""By how much the rest of a song may overshoot more than its excerpt does: at least, and of the excerpt's overshoot."""
_TRIAL_MARGIN_DB = 0.01
_MOST_THREADS = 4
"""Each holds a coder and a meter, some 40 MB: more cores than this are not worth the memory."""
_PROGRESS_S = 0.1
"""Between two reports of how far the threads are."""


@dataclass(frozen=True)
class Delivered:
    """One format, written and verified."""

    kind: OutputFormat
    plan: Plan
    """With the gain and the ceiling that this format needed."""
    read: ReadBack
    lost_tags: str
    """What the song's tags lost in it, in a sentence."""

    def check(self) -> MasterCheck:
        return self.read.check(self.kind)


@dataclass(frozen=True)
class Delivery:
    """What every format is made from. `curve` is the limiter's gain curve by `plan`."""

    song: render.ShapedSong
    plan: Plan
    curve: Curve
    carried_tags: tags.Tags
    twice: bool
    """Whether the second meters read every master too."""
    bias_lu: float = 0.0
    """By how much the song comes out louder than the solver reckons: a limiter takes most where a block is loudest."""

    def by(self, chosen: Plan, lane: Lane) -> Delivery:
        """The same by another plan."""
        if chosen is self.plan:
            return self
        return replace(self, plan=chosen, curve=limiter_curve(self.song, chosen, lane.begin(Stage.RENDER, 0, 0.0)))

    def settled(self, lane: Lane) -> Delivery:
        """The same with the gain that the limited song needs, as it is measured: every format would need it."""
        made = self
        for _ in range(_LOUDNESS_ROUNDS):
            if made.limited_lu() < _LIMITED_LU:
                break
            off_lu = made.measured_lufs(lane) - made.plan.loudness_lufs
            if abs(off_lu) < _SETTLED_LU:
                break
            bias_lu = made.bias_lu + off_lu
            chosen = solve_loudness(made.song, made.plan, steps.limiter_settings(made.plan).ceiling_dbtp, bias_lu)
            made = replace(made.by(chosen, lane), bias_lu=bias_lu)
        return made

    def master(self) -> Audio:
        """The master's samples, before they are coded."""
        return render.limited(self.song.audio, self.curve, steps.limiter_step(self.plan).parameters.offsets)

    def limited_lu(self) -> float:
        """What the limiter takes of the loudness, as the solver reckons."""
        before = loudness.integrated(self.song.block_energies)
        return 0.0 if before is None else before + steps.gain_db(self.plan) - self.plan.loudness_lufs

    def measured_lufs(self, lane: Lane) -> float:
        """The loudness of the limited song."""
        audio, tick = self.master(), lane.begin(Stage.RENDER, 0, 0.0)
        meter = loudness.BlockEnergyMeter(audio.rate_hz, np.ones(audio.channels))
        for block in ahead(audio.read()):
            meter.feed(block)
            tick(block.shape[1])
        found = loudness.integrated(meter.block_energies())
        return self.plan.loudness_lufs if found is None else found


def deliver(
    song: render.ShapedSong,
    chosen: Plan,
    open_output: Callable[[OutputFormat], BinaryIO],
    meter: Meter,
    carried_tags: tags.Tags,
    *,
    twice: bool = True,
) -> list[Delivered]:
    """Write every format of the plan's settings, lossless ones first. Raises Fault for the first that cannot hold.

    `twice`: the second meters read every master too, and must agree with ours.
    """
    outputs = sorted(chosen.settings.outputs, key=lambda kind: kind.is_lossy)
    curve = limiter_curve(song, chosen, meter.begin(Stage.RENDER, 2 * song.audio.frames, 0.3))
    made = Delivery(song, chosen, curve, carried_tags, twice).settled(meter)
    targets = {kind: open_output(kind) for kind in outputs}
    first = _First(next((kind for kind in outputs if not kind.is_lossy), None))
    # The dearest begin first, so that none of them is left over at the end; then the one that others wait for.
    order = sorted(outputs, key=lambda kind: (not kind.is_lossy, kind is not first.kind, -kind.added_work))
    work = [partial(_write, made, first, kind, targets[kind], share=1 / len(outputs)) for kind in order]
    return sorted(_side_by_side(work, meter), key=lambda each: outputs.index(each.kind))


def _side_by_side(work: Sequence[Callable[[Lane], Delivered]], meter: Meter) -> list[Delivered]:
    """Run `work` on as many threads as there are cores; the caller's reports progress; what ends one ends all."""
    if len(work) == 1:
        return [work[0](meter)]
    lanes = [Lane() for _ in work]
    with ThreadPoolExecutor(min(len(work), _MOST_THREADS, cores())) as pool:
        tasks = [pool.submit(task, lane) for task, lane in zip(work, lanes, strict=True)]
        try:
            while wait(tasks, _PROGRESS_S, FIRST_EXCEPTION).not_done and not _failures(tasks):
                meter.watch(lanes)
        finally:
            for lane in lanes:
                lane.is_halted = True
    for failure in _failures(tasks):
        raise failure
    return [task.result() for task in tasks]


def _failures(tasks: Sequence[Future[Delivered]]) -> list[BaseException]:
    ended = [task.exception() for task in tasks if task.done()]
    return [error for error in ended if error is not None and not isinstance(error, Halted)]


class _First:
    """The first lossless format, for which the other lossless ones wait: what became of it."""

    def __init__(self, kind: OutputFormat | None) -> None:
        self.kind = kind
        self._end: Future[Delivered] = Future()

    def write(self, make: Callable[[], Delivered]) -> Delivered:
        try:
            made = make()
        except BaseException as error:
            self._end.set_exception(error)
            raise
        self._end.set_result(made)
        return made

    def result(self) -> Delivered:
        return self._end.result()

    def has_samples_of(self, kind: OutputFormat) -> bool:
        """Whether that format holds the same whole numbers."""
        bits = encode.sample_bits(kind)
        return bits is not None and self.kind is not None and encode.sample_bits(self.kind) == bits


def _write(
    made: Delivery, first: _First, kind: OutputFormat, target: BinaryIO, lane: Lane, *, share: float
) -> Delivered:
    """One format in a thread of its own."""
    if kind.is_lossy:
        return _write_format(_on_trial(made, kind, lane), kind, target, lane, share)
    if kind is first.kind:
        return first.write(partial(_write_format, made, kind, target, lane, share))
    if not first.has_samples_of(kind):
        done = _write_format(made, kind, target, lane, share)
        chosen = first.result().plan
        return done if chosen is made.plan else _write_format(made.by(chosen, lane), kind, target, lane, 0.0)
    _encode(made, kind, target, lane, share)
    settled = first.result()
    digest = samples_digest(target, lane.begin(Stage.VERIFY, made.song.audio.frames, share))
    if settled.plan is made.plan and settled.read.digest == digest:
        # The same samples have the same readings.
        return _delivered(made, kind, target, settled.read)
    return _write_format(made.by(settled.plan, lane), kind, target, lane, 0.0)


def _on_trial(made: Delivery, kind: OutputFormat, lane: Lane) -> Delivery:
    """The same with the ceiling at which an excerpt of the song, where it is near the ceiling, holds in this format."""
    excerpt = codec_trial.excerpt(made.song, made.curve, made.plan.ceiling_dbtp)
    if excerpt is None:
        return made
    chosen, goal_dbtp = made.plan, 0.0
    for number in range(_TRIAL_ROUNDS):
        tick = lane.begin(Stage.ENCODE, 0, 0.0)
        offsets = steps.limiter_step(chosen).parameters.offsets
        audio = render.limited(excerpt.audio, limiter_curve(excerpt, chosen, tick), offsets)
        highest_dbtp = codec_trial.highest_dbtp(audio, kind, chosen.seed, tick)
        if not number:
            overshoot_db = max(0.0, highest_dbtp - made.plan.ceiling_dbtp)
            goal_dbtp = made.plan.ceiling_dbtp - _TRIAL_RESERVE_DB - _TRIAL_RESERVE_SHARE * overshoot_db
        over = highest_dbtp - goal_dbtp
        if over <= 0:
            break
        inner_ceiling_dbtp = steps.limiter_settings(chosen).ceiling_dbtp - over - _TRIAL_MARGIN_DB * 2**number
        chosen = solve_loudness(made.song, chosen, inner_ceiling_dbtp, made.bias_lu)
    return made if chosen is made.plan else made.by(chosen, lane).settled(lane)


def _encode(made: Delivery, kind: OutputFormat, target: BinaryIO, lane: Lane, share: float) -> Audio:
    """The master that was encoded."""
    master = made.master()
    tick = lane.begin(Stage.ENCODE, master.frames, share)
    encode.encode(master, kind, target, seed=made.plan.seed, tick=tick)
    return master


def _write_format(made: Delivery, kind: OutputFormat, target: BinaryIO, lane: Lane, share: float) -> Delivered:
    """Encode and read back one format, correcting loudness, and the ceiling of a lossy one, until it holds."""
    ceiling_dbtp, bias_lu = made.plan.ceiling_dbtp, made.bias_lu
    inner_ceiling_dbtp = steps.limiter_settings(made.plan).ceiling_dbtp
    found: list[str] = []
    for number in range(_CODEC_ROUNDS):
        master = _encode(made, kind, target, lane, share)
        read = read_back(
            target,
            master.frames,
            lane,
            share,
            finely=kind.is_lossy,
            twice=made.twice,
            with_digest=not kind.is_lossy and len(made.plan.settings.outputs) > 1,
        )
        if read.disagreements:
            raise verify.bad_master(read.disagreements)
        after, chosen = read.analysis.measurements, made.plan
        found = _misses(read, chosen, master, kind, ceiling_dbtp)
        share = 0.0
        if not found:
            return _delivered(made, kind, target, read)
        inner_ceiling_dbtp -= _excess(read, ceiling_dbtp, kind, _FIRST_MARGIN_DB * 2**number)
        bias_lu += (after.integrated_lufs or chosen.loudness_lufs) - chosen.loudness_lufs
        made = made.by(solve_loudness(made.song, chosen, inner_ceiling_dbtp, bias_lu), lane)
    raise verify.bad_master(found)


def _delivered(made: Delivery, kind: OutputFormat, target: BinaryIO, read: ReadBack) -> Delivered:
    lost_tags = _write_tags(target, kind, made.carried_tags, read.analysis.measurements)
    return Delivered(kind, made.plan, read, lost_tags)


def solve_loudness(song: render.ShapedSong, chosen: Plan, ceiling_dbtp: float, bias_lu: float) -> Plan:
    """The plan with the gain that brings the limited song to the loudness asked for, or as near as it can come.

    `bias_lu` is by how much the last master came out louder than the solver had reckoned.
    """
    aim = plan.affordable_lufs(chosen, max(song.peak_to_loudness_lu(), song.source_peak_to_loudness_lu))
    solved = render.solve_with_release(song, ceiling_dbtp, aim - bias_lu)
    curve = solved.limiter.curve(song.peaks, 10 ** (solved.gain_db / 20), song.audio.rate_hz)
    offsets = render.offsets(song, curve)
    if offsets:
        # Room for what is taken out, and a little more for what the guard changes of it.
        ceiling = 10 ** (ceiling_dbtp / 20)
        ceiling_dbtp = 20 * math.log10(ceiling - min(1.1 * max(map(abs, offsets)), ceiling / 2))
        solved = render.solve_with_release(song, ceiling_dbtp, aim - bias_lu)
        guarded = render.guarded_curve(song, solved.limiter, solved.gain_db, tick=lambda frames: None)
        offsets = render.offsets(song, guarded)
    found = plan.Solution(
        solved.limiter,
        solved.gain_db,
        song.peak_floor,
        held_by=solved.held_by,
        reduction_db=solved.reduction_db,
        quiet_lufs=song.programme.quiet_lufs,
        offsets=offsets,
    )
    return plan.with_loudness(chosen, found, aim_lufs=aim, reached_lufs=solved.reached_lufs + bias_lu)


def limiter_curve(song: render.ShapedSong, chosen: Plan, tick: Tick) -> Curve:
    """The limiter's gain curve by the plan. Raises Fault for a plan without gain or limiter."""
    return render.guarded_curve(song, steps.limiter_settings(chosen), steps.gain_db(chosen), tick=tick)


def _misses(read: ReadBack, chosen: Plan, master: Audio, kind: OutputFormat, ceiling_dbtp: float) -> list[str]:
    after = read.analysis.measurements
    return verify.misses(
        after,
        second=read.second,
        loudness_lufs=chosen.loudness_lufs,
        ceiling_dbtp=ceiling_dbtp,
        frames=round(master.frames * after.rate_hz / master.rate_hz),
        slack_frames=CODER_PADDING_FRAMES if kind.is_lossy else 0,
    )


def _excess(read: ReadBack, ceiling_dbtp: float, kind: OutputFormat, margin_db: float) -> float:
    """How far a master overshot by either set of meters, and a little: the limiter's ceiling goes down by that."""
    over = read.readings().true_peak_dbtp - ceiling_dbtp
    over = over if kind.is_lossy or over > verify.PEAK_TOLERANCE_DB else 0.0
    if verify.is_over(read.second, ceiling_dbtp):
        over = max(over, read.second.true_peak_dbtp - ceiling_dbtp)
    return over + margin_db if over > 0 else 0.0


def _write_tags(target: BinaryIO, kind: OutputFormat, carried: tags.Tags, after: Measurements) -> str:
    """Give the master the song's tags; a sentence on those that it does not hold, or nothing."""
    target.seek(0)
    return tags.write(target, kind, carried, after) if carried else ""
