"""The gradient descent of `mastering.fit` as a function of bytes, which ZeroGPU can run in a process with a GPU.

That process holds a GPU only meanwhile, and every second counts against the caller's daily quota. So it gets a song's
contour (2.5 MB for four minutes), never the song, and gives back the knobs; the song is decoded, tried and rendered on
the CPU. The bytes are arrays and numbers, no pickles: they come from the process that parsed an untrusted file.
"""

from __future__ import annotations

import dataclasses
import io
import json
import queue
import threading
import typing
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mastering.fit import ChainModel, Descent, DescentLimits, Knobs

GPU_START_S = 4.0
"""Seconds of a GPU before the first iteration: its start, moving the contour there, loading what an iteration needs,
recording it. An H100 took 0.83 s."""
ITERATION_S = 0.004
ITERATION_S_PER_SONG_S = 0.00004
"""Seconds of one iteration: a constant, and a share that grows with the song, of two minutes at most. An H100 took
0.0012 s."""
MOST_S = 60
"""Seconds of a GPU that a descent asks for at most."""
_NUMBERS = "numbers"
"""Name of the array that holds all that is no array, as JSON."""


class DescentCancelled(Exception):
    """Raised in the descent's thread when its caller has closed the generator."""


def pack_request(
    model: ChainModel, start: Knobs, bounds: tuple[Knobs, Knobs], goal: Any, weights: Any, **rest: Any
) -> bytes:
    """The arguments of `mastering.fit.descend`, but for `tick`, as bytes."""
    low, high = bounds
    contour = model.song.contour
    about = {"song_s": len(contour.peaks) / contour.blocks_per_s, "iterations": rest["limits"].iterations}
    parts = {"song": model.song, "start": start, "low": low, "high": high, "goal": goal, "weights": weights}
    return _pack({**parts, **rest, **about})


def duration_s(request: bytes) -> int:
    """Seconds of a GPU to ask for, by the song's length and the number of iterations."""
    numbers = _numbers(request)
    song_s, iterations = float(numbers["song_s"]), int(numbers["iterations"])
    return min(MOST_S, round(GPU_START_S + iterations * (ITERATION_S + ITERATION_S_PER_SONG_S * song_s)))


def run_descent(request: bytes) -> Iterator[float | bytes]:
    """Runs the descent; yields the fraction done, again and again, then the `Descent` as bytes.

    To close the generator cancels the descent at its next iteration.
    """
    results: queue.SimpleQueue[float | bytes | BaseException] = queue.SimpleQueue()
    cancelled = threading.Event()

    def tick(fraction: float) -> None:
        results.put(fraction)
        if cancelled.is_set():
            raise DescentCancelled

    def work() -> None:
        try:
            results.put(_run(request, tick))
        except BaseException as error:  # raised again in the reader
            results.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
            if isinstance(result, bytes):
                return
    finally:
        cancelled.set()
        thread.join()


def _run(request: bytes, tick: Any) -> bytes:
    from mastering import fit

    given = _unpack(request)
    song = _record(fit.PlannedSong, given, "song")
    start, low, high = (_record(fit.Knobs, given, name) for name in ("start", "low", "high"))
    limits: DescentLimits = _record(fit.DescentLimits, given, "limits")
    # It must end by itself before ZeroGPU ends it.
    limits = dataclasses.replace(limits, seconds=min(limits.seconds, duration_s(request) - GPU_START_S / 2))
    found = fit.descend(
        fit.ChainModel(song),
        start,
        (low, high),
        given["goal"],
        given["weights"],
        seed=given["seed"],
        limits=limits,
        tick=tick,
        caps=_record(fit.Caps, given, "caps") if "caps.goal" in given else None,
    )
    return _pack({"descent": found})


def unpack_result(answer: bytes) -> Descent:
    """The result of `run_descent` from its bytes."""
    from mastering import fit

    found: Descent = _record(fit.Descent, _unpack(answer), "descent")
    return found


def _pack(tree: dict[str, Any]) -> bytes:
    """A .npz archive: each array under its path in the tree, all numbers and strings as JSON in one more array."""
    arrays: dict[str, Any] = {}
    numbers: dict[str, Any] = {}

    def put(path: str, value: Any) -> None:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                put(f"{path}.{field.name}", getattr(value, field.name))
        elif hasattr(value, "dtype"):
            arrays[path] = value
        else:
            numbers[path] = value

    for name, value in tree.items():
        put(name, value)
    numpy = _numpy()
    file = io.BytesIO()
    text = numpy.frombuffer(json.dumps(numbers).encode(), dtype=numpy.uint8)
    numpy.savez(file, allow_pickle=False, **arrays, **{_NUMBERS: text})
    return file.getvalue()


def _unpack(data: bytes) -> dict[str, Any]:
    """Path → array, number or string."""
    with _numpy().load(io.BytesIO(data), allow_pickle=False) as file:
        return {**{name: file[name] for name in file.files if name != _NUMBERS}, **_numbers(data)}


def _numbers(data: bytes) -> dict[str, Any]:
    """The numbers alone, without the arrays."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        member = file.read(f"{_NUMBERS}.npy")
    found: dict[str, Any] = json.loads(member[member.index(b"\n") + 1 :])
    return found


def _record(kind: type[Any], flat: dict[str, Any], path: str) -> Any:
    """A frozen dataclass put together again from its fields' paths."""
    types = typing.get_type_hints(kind)

    def field(name: str) -> Any:
        at, of = f"{path}.{name}", types[name]
        return _record(of, flat, at) if isinstance(of, type) and dataclasses.is_dataclass(of) else flat[at]

    return kind(**{one.name: field(one.name) for one in dataclasses.fields(kind)})


def _numpy() -> Any:
    import numpy

    return numpy
