"""One result of a benchmark, and how results are written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class BenchmarkLine:
    """`limit` is the worst value allowed, `peer` who else was measured in the same run, `peer_value` what it got.

    `device` names what it was measured on, a GPU or so many cores; such a line stays when the group is measured again
    on a machine without it.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    limit: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    device: str | None = None

    @property
    def holds(self) -> bool:
        if self.limit is None:
            return True
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    def __str__(self) -> str:
        limit = "" if self.limit is None else f"  limit {self.limit:g}"
        peer = "" if self.peer is None or self.peer_value is None else f"  ({self.peer}: {self.peer_value:.4g})"
        return f"{'ok ' if self.holds else 'MISS'} {self.name:58} {self.value:10.4g} {self.unit}{limit}{peer}"


def write_json(lines: Sequence[BenchmarkLine], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", "utf-8")


def read_json(path: Path) -> list[BenchmarkLine]:
    return [BenchmarkLine(**entry) for entry in json.loads(path.read_text("utf-8"))] if path.exists() else []


_HEAD = """# Benchmarks

Written by `make bench`: do not edit. Every line with a peer was measured in the same run as the peer, on the same
machine and input; times are medians of paired runs and are given as ratios, because seconds differ from machine to
machine. "Floor" is what decoding a 24-bit WAV and encoding it again takes with libsndfile.

Repeat it with `make bench` (everything) or `.venv/bin/python -m ops.bench --only NAME` (one group; the others' lines
are kept from the last run, as are those that name a GPU or a number of cores that this machine lacks). The peers that
are not ours are installed by `make bench`, from locks/bench.txt.

| what | value | limit | peer | peer's value |
| --- | --- | --- | --- | --- |
"""


def write_page(lines: Sequence[BenchmarkLine], path: Path) -> None:
    path.write_text(_HEAD + "\n".join(_row(line) for line in lines) + "\n", "utf-8")


def _row(line: BenchmarkLine) -> str:
    value = f"{line.value:.4g} {line.unit}" if line.holds else f"**{line.value:.4g} {line.unit} (misses)**"
    sign = "≤" if line.better == "lower" else "≥"
    limit = "" if line.limit is None else f"{sign} {line.limit:g}"
    theirs = "" if line.peer_value is None else f"{line.peer_value:.4g}"
    return f"| {line.name} | {value} | {limit} | {line.peer or ''} | {theirs} |"
