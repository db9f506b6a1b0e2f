"""Down the slope: the knobs move until the stand-in's features are as near to the goal as they come.

Adam (Kingma and Ba, ICLR 2015, algorithm 1) is written out: torch's own loads its compiler at the first step. All that
changes from one iteration to the next lies in tensors that keep their place, so that a GPU can replay an iteration
(`device.repeated`). On one thread of a CPU the same input gives the same knobs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mastering.dsp.contour import Vector
from mastering.fit.chain import Chain, Knobs
from mastering.fit.device import at_work, device_name, finish, guarded, repeated

_DRAWS = 24
"""Seeded settings of the compressor that are tried before the descent: a threshold too high has no slope to follow."""
_HUBER_DB = 0.25
_ROUGHNESS = 0.02
"""What a decibel of mean bend in the tone curve counts: a smooth one before a jagged one that does no better."""
_SQUEEZE = 0.01
"""What a decibel of mean reduction counts: less compression before more that does no better."""
_RATES = {
    "mid_db": 0.2,
    "side_db": 0.2,
    "width_db": 0.15,
    "thresholds_db": 0.6,
    "slopes": 0.03,
    "gains_db": 0.15,
    "drive": 0.03,
}
"""First step of each knob, in its own unit."""
_FIRST, _SECOND = 0.9, 0.98
"""How much of Adam's two moments stays from one iteration to the next."""


@dataclass(frozen=True)
class KnobLimits:
    """When to stop."""

    iterations: int = 120
    seconds: float = 60.0


@dataclass(frozen=True)
class Descent:
    knobs: Knobs
    iterations: int
    device: str


def descend(
    chain: Chain,
    start: Knobs,
    bounds: tuple[Knobs, Knobs],
    goal: Vector,
    weights: Vector,
    *,
    seed: int,
    limits: KnobLimits,
    tick: Callable[[float], None],
) -> Descent:
    """Move the knobs from `start`, within `bounds`, towards the goal. Raises DeviceFailed.

    Goal and weights are (features,), dB; a goal that is NaN should weigh nothing. `tick` hears the fraction done after
    each iteration; it may raise. Once one of `limits` is reached the best knobs so far are the answer; seconds count
    from the call, and the draws are made in any case.
    """
    end_s = time.monotonic() + limits.seconds
    device = chain.device
    with at_work(device):
        with guarded():
            course = _Course(chain, goal, weights, bounds, _draws(start, bounds, seed), limits.iterations)
            look, step = repeated(course.look, device), repeated(course.step, device)
            for _ in range(1 + _DRAWS):
                look()
            course.begin()
            finish(device)
        done = 0
        while done < limits.iterations and time.monotonic() < end_s:
            with guarded():
                step()
                finish(device)
            done += 1
            tick(done / limits.iterations)
        with guarded():
            return Descent(course.best(), done, device_name() if device.type == "cuda" else "cpu")


def _draws(start: Knobs, bounds: tuple[Knobs, Knobs], seed: int) -> list[Knobs]:
    """Where the descent may begin: `start` itself, and with the compressor set otherwise."""
    random = np.random.default_rng(seed)
    low, high = (bound.by_name() for bound in bounds)

    def drawn(name: str) -> NDArray[np.float64]:
        least, most = low[name].astype(np.float32), high[name].astype(np.float32)
        return (least + (most - least) * random.random(3).astype(np.float32)).astype(np.float64)

    return [
        start,
        *(replace(start, thresholds_db=drawn("thresholds_db"), slopes=drawn("slopes")) for _ in range(_DRAWS)),
    ]


class _Course:
    """A descent on its way. All knobs are one row, `at`; `look` and `step` change tensors in place and read none."""

    def __init__(
        self,
        chain: Chain,
        goal: Vector,
        weights: Vector,
        bounds: tuple[Knobs, Knobs],
        draws: list[Knobs],
        iterations: int,
    ) -> None:
        self._chain = chain
        self._sizes = {name: values.size for name, values in draws[0].by_name().items()}
        self._aim, self._counts = chain.tensor(np.nan_to_num(goal)), chain.tensor(weights)
        self._low, self._high = (chain.tensor(_row(bound)) for bound in bounds)
        self._draws = chain.tensor(np.stack([_row(drawn) for drawn in draws]))
        self._paces = chain.tensor(_paces(self._sizes, iterations))
        self._at, self._best = self._draws[0].clone(), self._draws[0].clone()
        self._least = torch.full((), math.inf, device=chain.device)
        self._first, self._second = torch.zeros_like(self._at), torch.zeros_like(self._at)
        self._turn = torch.zeros(1, dtype=torch.int64, device=chain.device)

    @torch.no_grad()
    def look(self) -> None:
        """Go to the next draw."""
        self._at.copy_(self._draws.index_select(0, self._turn)[0])
        self._keep(self._loss(self._at))
        self._turn.add_(1)

    @torch.no_grad()
    def begin(self) -> None:
        """Start from the best of the draws."""
        self._at.copy_(self._best)
        self._turn.zero_()

    def step(self) -> None:
        """One iteration: loss, slope, best so far, and on by a step of Adam within the bounds."""
        at = self._at.detach().requires_grad_(True)
        loss = self._loss(at)
        (slope,) = torch.autograd.grad(loss, at)
        with torch.no_grad():
            self._keep(loss)
            pace = self._paces.index_select(0, self._turn)[0]
            rates, first_left, second_left = pace[:-2], pace[-2], pace[-1]
            slope = torch.nan_to_num(slope)
            self._first.mul_(_FIRST).add_(slope, alpha=1 - _FIRST)
            self._second.mul_(_SECOND).add_(slope.square(), alpha=1 - _SECOND)
            change = (self._first / first_left) / (torch.sqrt(self._second / second_left) + 1e-8)
            self._at.copy_(torch.clamp(self._at - rates * change, self._low, self._high))
            self._turn.add_(1)

    def best(self) -> Knobs:
        """The knobs with the least loss so far."""
        parts = torch.split(self._best.cpu(), list(self._sizes.values()))
        return Knobs(*(part.numpy().astype(np.float64) for part in parts))

    def _loss(self, row: Tensor) -> Tensor:
        at = dict(zip(self._sizes, torch.split(row, list(self._sizes.values())), strict=True))
        miss = (self._chain.features(at) - self._aim).abs()
        soft = torch.where(miss < _HUBER_DB, miss.square() / (2 * _HUBER_DB), miss - _HUBER_DB / 2)
        bends = sum(at[name].diff(n=2).abs().mean() for name in ("mid_db", "side_db"))
        return (soft * self._counts).sum() + _ROUGHNESS * bends + _SQUEEZE * self._chain.reduced_db

    def _keep(self, loss: Tensor) -> None:
        better = loss < self._least
        self._best.copy_(torch.where(better, self._at, self._best))
        self._least.copy_(torch.where(better, loss, self._least))


def _row(knobs: Knobs) -> NDArray[np.float64]:
    return np.concatenate(list(knobs.by_name().values()))


def _paces(sizes: dict[str, int], iterations: int) -> NDArray[np.float64]:
    """Of each iteration the step of each knob, and what of Adam's two moments is there by then."""
    count = np.arange(1, iterations + 1)[:, None]
    pace = 0.05 + 0.95 * 0.5 * (1 + np.cos(math.pi * count / iterations))
    rates = np.repeat([_RATES[name] for name in sizes], list(sizes.values()))
    return np.hstack([pace * rates, 1 - _FIRST**count, 1 - _SECOND**count])
