"""`python -m ops.bench`: run every benchmark, print the lines, write docs/benchmarks.json and .md."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

# One thread for everybody: the figures are per thread.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

from ops import bench
from ops.bench.line import BenchmarkLine, read_json, write_json, write_page
from router.core import event_log

_ROOT = Path(__file__).parents[2]


def groups() -> dict[str, object]:
    """Every module beside this one that measures."""
    names = (found.name for found in pkgutil.iter_modules(bench.__path__) if not found.name.startswith("_"))
    modules = {name: import_module(f"ops.bench.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "measure")}


def main() -> int:
    known = groups()
    parser = argparse.ArgumentParser(prog="python -m ops.bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(known), action="append", help="measure this group alone")
    event_log.book.write = lambda line: None  # routers inside this process log nothing
    chosen = parser.parse_args().only or sorted(known)
    path = _ROOT / "docs" / "benchmarks.json"
    holds = True
    for name in chosen:
        found = measured(name, known[name])
        for line in found:
            print(line, flush=True)
        holds = holds and all(line.holds for line in found)
        # After each group: a later one that fails costs no earlier one its figures.
        here = {line.device for line in found}
        kept = [line for line in read_json(path) if line.name.split("/")[0] != name or line.device not in {None, *here}]
        lines = sorted([*kept, *found], key=lambda line: line.name)
        write_json(lines, path)
        write_page(lines, _ROOT / "docs" / "benchmarks.md")
    return 0 if holds else 1


def measured(name: str, module: object) -> list[BenchmarkLine]:
    """The module's lines under its name."""
    from dataclasses import replace

    found: list[BenchmarkLine] = module.measure()  # type: ignore[attr-defined]
    return [replace(line, name=f"{name}/{line.name}") for line in found]


if __name__ == "__main__":
    sys.exit(main())
