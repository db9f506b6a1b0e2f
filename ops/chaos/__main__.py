"""`python -m ops.chaos --jobs N --seed S`: real jobs through real processes that break all the while.

It ends with 0 only where no job was lost or delivered twice, none failed that need not have, and no honest one
suffered by a hostile one; with 1 otherwise. Progress goes to standard error. The jobs are in rounds of 30; a run that
was cut off goes on with the same seed from the job that it names (`--first`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable

from ops.chaos.rounds import run_rounds
from ops.chaos.schedule import ROUND_JOBS
from ops.chaos.verdict import Verdict
from router.core import event_log

MAX_MINUTES = 60
SAY_EVERY_S = 3.0


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    event_log.book.write = lambda line: None  # the store of accounts is opened in this process too
    end_s, say = time.monotonic() + options.minutes * 60, _progress()
    try:
        running = run_rounds(options.seed, options.first, options.jobs, end_s, say)
        verdict = asyncio.run(running)
    except RuntimeError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    for sentence in verdict.evidence:
        print(sentence, file=sys.stderr)
    _show(options, verdict)
    if (left := options.jobs - verdict.jobs) > 0:
        rest = f"SEED={options.seed} FIRST={options.first + verdict.jobs} JOBS={left}"
        print(f"The rest: make soak-chaos {rest}", file=sys.stderr)
    return 0 if verdict.is_clean and verdict.jobs else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, required=True, help="how many; at least 1")
    parser.add_argument("--seed", type=int, required=True, help="draws the schedule; the same seed, the same faults")
    parser.add_argument("--first", type=int, default=0, help=f"number of the first job, a multiple of {ROUND_JOBS}")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end in place of sentences")
    parser.add_argument(
        "--minutes", type=float, default=MAX_MINUTES, help=f"no round begins that may end later; {MAX_MINUTES} at most"
    )
    options = parser.parse_args()
    if options.jobs < 1 or options.first < 0 or options.first % ROUND_JOBS:
        parser.error(f"jobs must be 1 or more, and the first one's number a multiple of {ROUND_JOBS}")
    if not 0 < options.minutes <= MAX_MINUTES:
        parser.error(f"minutes must be more than 0 and at most {MAX_MINUTES}")
    return options


def _show(options: argparse.Namespace, verdict: Verdict) -> None:
    found = {"seed": options.seed, "first": options.first, **verdict.as_json()}
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if name != "evidence":
            print(f"{name}: {value if not isinstance(value, list | dict) else json.dumps(value)}")


def _progress() -> Callable[[str], None]:
    """Says where the run is: on a terminal in one line, else a line every few seconds."""
    began_s, said_s = time.monotonic(), 0.0
    is_terminal = sys.stderr.isatty()

    def say(what: str) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if is_terminal:
            print(f"\r\x1b[K{now_s - began_s:5.0f} s  {what}", end="", file=sys.stderr, flush=True)
        elif now_s - said_s >= SAY_EVERY_S:
            said_s = now_s
            print(f"{now_s - began_s:5.0f} s  {what}", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
