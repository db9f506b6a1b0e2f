"""The one part of a `fit` that wants a GPU, as bytes in and bytes out: the gradient descent of `mastering.fit`.

On ZeroGPU it runs in a process of its own that holds a GPU only meanwhile, and every second counts against somebody's
daily quota. So it gets a song's contour (2.5 MB for four minutes), never the song, and gives back the knobs; the song
is decoded, tried and rendered on the CPU. The bytes are arrays and numbers, no pickles: they come from the process
that parsed a stranger's file.
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
    from mastering.fit import Chain, Descent, KnobLimits, Knobs

FIRST_S = 4.0
"""Of a GPU: its start, moving the contour there, loading what an iteration needs, recording it. An H100 took 0.83 s."""
STEP_S = 0.004
STEP_S_PER_SONG_S = 0.00004
"""One iteration: a constant, and a share that grows with the song, of two minutes at most. An H100 took 0.0012 s."""
MOST_S = 60
_NUMBERS = "numbers"


class Stopped(Exception):
    """Nobody wants the result any more."""


def packed(chain: Chain, start: Knobs, bounds: tuple[Knobs, Knobs], goal: Any, weights: Any, **rest: Any) -> bytes:
    """What `mastering.fit.descend` is given, but for `tick`."""
    low, high = bounds
    contour = chain.scene.contour
    about = {"song_s": len(contour.peaks) / contour.blocks_per_s, "iterations": rest["limits"].iterations}
    parts = {"scene": chain.scene, "start": start, "low": low, "high": high, "goal": goal, "weights": weights}
    return _pack({**parts, **rest, **about})


def duration_s(request: bytes) -> int:
    """Seconds of a GPU to ask for: by the length of the song and by how long it is to be refined."""
    numbers = _numbers(request)
    song_s, iterations = float(numbers["song_s"]), int(numbers["iterations"])
    return min(MOST_S, round(FIRST_S + iterations * (STEP_S + STEP_S_PER_SONG_S * song_s)))


def descend(request: bytes) -> Iterator[float | bytes]:
    """The fraction done, again and again, then the `Descent` in bytes. To close it is to stop."""
    said: queue.SimpleQueue[float | bytes | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()

    def tick(fraction: float) -> None:
        said.put(fraction)
        if stopped.is_set():
            raise Stopped

    def work() -> None:
        try:
            said.put(_descend(request, tick))
        except BaseException as error:  # handed to whoever reads
            said.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            word = said.get()
            if isinstance(word, BaseException):
                raise word
            yield word
            if isinstance(word, bytes):
                return
    finally:
        stopped.set()
        thread.join()


def _descend(request: bytes, tick: Any) -> bytes:
    from mastering import fit

    given = _unpack(request)
    scene = _record(fit.Scene, given, "scene")
    start, low, high = (_record(fit.Knobs, given, name) for name in ("start", "low", "high"))
    limits: KnobLimits = _record(fit.KnobLimits, given, "limits")
    # It must end by itself before ZeroGPU ends it.
    limits = dataclasses.replace(limits, seconds=min(limits.seconds, duration_s(request) - FIRST_S / 2))
    found = fit.descend(
        fit.Chain(scene),
        start,
        (low, high),
        given["goal"],
        given["weights"],
        seed=given["seed"],
        limits=limits,
        tick=tick,
    )
    return _pack({"descent": found})


def unpacked(answer: bytes) -> Descent:
    """What `descend` found."""
    from mastering import fit

    found: Descent = _record(fit.Descent, _unpack(answer), "descent")
    return found


def _pack(tree: dict[str, Any]) -> bytes:
    """Arrays by their path in the tree, and all numbers and words in one of JSON."""
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
    words = numpy.frombuffer(json.dumps(numbers).encode(), dtype=numpy.uint8)
    numpy.savez(file, allow_pickle=False, **arrays, **{_NUMBERS: words})
    return file.getvalue()


def _unpack(data: bytes) -> dict[str, Any]:
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
        at, wanted = f"{path}.{name}", types[name]
        return _record(wanted, flat, at) if isinstance(wanted, type) and dataclasses.is_dataclass(wanted) else flat[at]

    return kind(**{one.name: field(one.name) for one in dataclasses.fields(kind)})


def _numpy() -> Any:
    import numpy

    return numpy
