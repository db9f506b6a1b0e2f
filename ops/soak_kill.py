"""Long runs of kill -9: a working router is killed at random moments, and no job may be lost (`make soak-kill`).

The run consists of rounds of 25 kills, each with a stack and folders of its own and a seed of its own: the run's seed,
then the next numbers. The same seed draws the same sequence of kills, so a run goes on, or a round that failed is
repeated, by the seed that was printed for it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.kills import Findings, torment
from tests.scenarios.test_kills import SETTINGS
from tests.songs import demo
from tests.stack import stack

ROUND_KILLS = 25
"""Kills a round: some minutes, so that little is lost when a run is broken off."""
LONGEST_PAUSE_S = 3.0
"""Between a start and its kill. `make test` pauses 0.9 s; here masters also come to their end in between."""
MAX_MINUTES = 60
SONG_S = 3
LEAST_MASTERS_PER_KILL = 0.4
"""With fewer the router was killed before it had anything to lose."""


def main() -> None:
    """Exit code 1, with the sentences of what broke, after the first round that found something."""
    options = _options()
    end_s = time.monotonic() + options.minutes * 60
    seed, left, longest_s, mastered = options.seed, options.kills, 0.0, 0
    while left > 0 and time.monotonic() + longest_s < end_s:
        kills, began_s = min(ROUND_KILLS, left), time.monotonic()
        print(f"seed {seed}: {kills} kills", flush=True)
        findings = _round(seed, kills)
        longest_s = max(longest_s, time.monotonic() - began_s)
        _report(findings)
        if _broke(findings):
            sys.exit(f"Again: make soak-kill SEED={seed} KILLS={kills}")
        seed, left, mastered = seed + 1, left - kills, mastered + findings.mastered
    survived = options.kills - left
    print(f"{survived} kills passed, {mastered} jobs mastered")
    if mastered < LEAST_MASTERS_PER_KILL * survived:
        sys.exit(f"Too few jobs to show anything: {LEAST_MASTERS_PER_KILL:.0%} of the kills is the least")
    if left:
        print(f"The rest: make soak-kill SEED={seed} KILLS={left}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops.soak_kill", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True, help="in all; at least 1")
    parser.add_argument(
        "--minutes", type=float, default=MAX_MINUTES, help=f"no round ends later; {MAX_MINUTES} at most"
    )
    options = parser.parse_args()
    if options.kills < 1 or not 0 < options.minutes <= MAX_MINUTES:
        parser.error(f"kills must be 1 or more, minutes more than 0 and at most {MAX_MINUTES}")
    return options


def _round(seed: int, kills: int) -> Findings:
    with tempfile.TemporaryDirectory(prefix="soak-kill-") as name:
        song = demo(Path(name) / "song.wav", SONG_S).read_bytes()
        with stack(Path(name), settings=SETTINGS) as running:
            # The canary: some bytes of the song that must be nowhere on a disk.
            return torment(running, song, song[100_000:100_064], kills, seed, LONGEST_PAUSE_S)


def _report(findings: Findings) -> None:
    recoveries_s = sorted(findings.recoveries_s)
    median_s, worst_s = recoveries_s[len(recoveries_s) // 2], recoveries_s[-1]
    print(f"  {findings.mastered} of {findings.accepted} accepted jobs mastered")
    print(f"  from start to answer {median_s:.2f} s, at worst {worst_s:.2f} s", flush=True)
    for violation in findings.violations:
        print(f"  {violation}", flush=True)


def _broke(findings: Findings) -> bool:
    """Also where no job was accepted: such a round has shown nothing."""
    return bool(findings.violations) or not findings.mastered == findings.accepted > 0


if __name__ == "__main__":
    main()
