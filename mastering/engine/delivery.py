"""One shaped song into every format asked for: encode, decode again, measure, and correct until the format holds.

Formats are made side by side, one thread to a core: the coders let go of the interpreter. Lossless ones share a
thread, so that a gain corrected for the first is the others' too; a lossy one starts from the plan, and only its own
ceiling falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import BinaryIO

from mastering.audio import encode, tags
from mastering.contract import CODER_PADDING_FRAMES, MasterCheck, Measurements, OutputFormat, Plan, Stage
from mastering.dsp.limiter import Curve
from mastering.dsp.stream import Audio
from mastering.dsp.threads import cores
from mastering.engine import analyse, plan, render, steps, verify
from mastering.engine.progress import Halted, Lane, Meter, Tick
from mastering.engine.read_back import ReadBack, read_back

_CODEC_ROUNDS = 6
"""Encodings of one format before it is given up."""
_FIRST_MARGIN_DB = 0.05
"""Beyond what a coder overshot, doubled each round: every encoding errs anew, and rounds must come to an end."""
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
    after: analyse.Analysis
    check: MasterCheck
    lost_tags: str
    """What the song's tags lost in it, in a sentence."""


@dataclass(frozen=True)
class Delivery:
    """What every format is made from. `curve` is the limiter's gain curve by `plan`."""

    song: render.ShapedSong
    plan: Plan
    curve: Curve
    carried_tags: tags.Tags
    twice: bool
    """Whether the second meters read every master too."""


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
    made = Delivery(song, chosen, curve, carried_tags, twice)
    targets = {kind: open_output(kind) for kind in outputs}
    share = 1 / len(outputs)
    lossless = [kind for kind in outputs if not kind.is_lossy]
    groups = [group for group in (lossless, *([kind] for kind in outputs if kind.is_lossy)) if group]
    work = [partial(_deliver_group, made, {kind: targets[kind] for kind in group}, share=share) for group in groups]
    return list(chain.from_iterable(_side_by_side(work, meter)))


def _side_by_side(work: Sequence[Callable[[Lane], list[Delivered]]], meter: Meter) -> list[list[Delivered]]:
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


def _failures(tasks: Sequence[Future[list[Delivered]]]) -> list[BaseException]:
    ended = [task.exception() for task in tasks if task.done()]
    return [error for error in ended if error is not None and not isinstance(error, Halted)]


def _deliver_group(
    made: Delivery, targets: dict[OutputFormat, BinaryIO], lane: Lane, *, share: float
) -> list[Delivered]:
    delivered: list[Delivered] = []
    for kind, target in targets.items():
        done = _write_format(made, kind, target, lane, share)
        delivered.append(done)
        if done.plan is not made.plan:
            # A correction of the loudness holds for the other lossless formats too.
            made = replace(
                made, plan=done.plan, curve=limiter_curve(made.song, done.plan, lane.begin(Stage.RENDER, 0, 0.0))
            )
    return delivered


def _write_format(made: Delivery, kind: OutputFormat, target: BinaryIO, lane: Lane, share: float) -> Delivered:
    """Encode and read back one format, correcting loudness, and the ceiling of a lossy one, until it holds."""
    song, chosen, curve = made.song, made.plan, made.curve
    ceiling_dbtp, inner_ceiling_dbtp, bias_lu = chosen.ceiling_dbtp, chosen.ceiling_dbtp, 0.0
    found: list[str] = []
    for number in range(_CODEC_ROUNDS):
        master = render.limited(song.audio, curve)
        encode.encode(master, kind, target, seed=chosen.seed, tick=lane.begin(Stage.ENCODE, master.frames, share))
        read = read_back(target, master.frames, lane, share, finely=kind.is_lossy, twice=made.twice)
        if read.disagreements:
            raise verify.bad_master(read.disagreements)
        after = read.analysis.measurements
        found = _misses(read, chosen, master, kind, ceiling_dbtp)
        share = 0.0
        if not found:
            lost_tags = _write_tags(target, kind, made.carried_tags, after)
            return Delivered(kind, chosen, read.analysis, read.check(kind), lost_tags)
        inner_ceiling_dbtp -= _excess(read, ceiling_dbtp, kind, _FIRST_MARGIN_DB * 2**number)
        bias_lu += (after.integrated_lufs or chosen.loudness_lufs) - chosen.loudness_lufs
        chosen = solve_loudness(song, chosen, inner_ceiling_dbtp, bias_lu)
        curve = limiter_curve(song, chosen, lane.begin(Stage.RENDER, 0, 0.0))
    raise verify.bad_master(found)


def solve_loudness(song: render.ShapedSong, chosen: Plan, ceiling_dbtp: float, bias_lu: float) -> Plan:
    """The plan with the gain that brings the limited song to the loudness asked for, or as near as it can come.

    `bias_lu` is by how much the last master came out louder than the solver had reckoned.
    """
    aim = plan.affordable_lufs(chosen, song.peak_to_loudness_lu())
    limiter, gain_db, reached = render.solve_with_release(song, ceiling_dbtp, aim - bias_lu)
    found = plan.Solution(limiter, gain_db, song.peak_floor)
    return plan.with_loudness(chosen, found, aim_lufs=aim, reached_lufs=reached + bias_lu)


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
    """How far a lossy coder overshot, or any master by soxr, and a little: the limiter's ceiling goes down by that."""
    over = read.readings().true_peak_dbtp - ceiling_dbtp if kind.is_lossy else 0.0
    if verify.is_over(read.second, ceiling_dbtp):
        over = max(over, read.second.true_peak_dbtp - ceiling_dbtp)
    return over + margin_db if over > 0 else 0.0


def _write_tags(target: BinaryIO, kind: OutputFormat, carried: tags.Tags, after: Measurements) -> str:
    """Give the master the song's tags; a sentence on those that it does not hold, or nothing."""
    target.seek(0)
    return tags.write(target, kind, carried, after) if carried else ""
