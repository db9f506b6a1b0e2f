"""Gradient descent: moves the knobs until the chain model's features are as near to the goal as they come.

Adam (Kingma and Ba, ICLR 2015, algorithm 1) is written out: torch's own loads its compiler at the first step. All that
changes from one iteration to the next lies in tensors that are changed in place, so that a GPU can replay an iteration
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

from mastering.dsp.features import Vector
from mastering.fit.chain_model import ChainModel, Knobs
from mastering.fit.device import at_work, guarded, repeated, torch_device_name, wait_for_device

_DRAWS = 24
"""Seeded settings of the compressor that are tried before the descent: a threshold too high has no gradient."""
_HUBER_DB = 0.25
"""Below this error the loss is quadratic, above it straight (Huber): no gradient jumps where a feature is met."""
_ROUGHNESS_WEIGHT = 0.02
"""What a decibel of mean bend in the tone curve counts: a smooth one before a jagged one that does no better."""
_REDUCTION_WEIGHT = 0.01
"""What a decibel of the compressor's mean reduction counts: less before more that does no better."""
_EXCESS_WEIGHT = 4.0
"""What a decibel beyond a cap counts: more than any error that could be lowered in return."""
_STEP_SIZES = {
    "mid_db": 0.2,
    "side_db": 0.2,
    "width_db": 0.15,
    "thresholds_db": 0.6,
    "slopes": 0.03,
    "gains_db": 0.15,
    "drive": 0.03,
}
"""First step of each knob, in its own unit."""
_BETA_1, _BETA_2 = 0.9, 0.98
"""How much of Adam's two moments stays from one iteration to the next."""


@dataclass(frozen=True)
class DescentLimits:
    """When to stop: after so many iterations or seconds."""

    iterations: int = 120
    seconds: float = 60.0


@dataclass(frozen=True)
class Caps:
    """Means of errors that shall grow no further, so that none is paid for with another: what the features should be,
    the weights of each mean (caps, features), and the most that each may be (caps,), in dB."""

    goal: Vector
    rows: NDArray[np.float64]
    most_db: NDArray[np.float64]


@dataclass(frozen=True)
class Descent:
    """The result of a descent: the best knobs, and how and where they were found."""

    knobs: Knobs
    iterations: int
    device: str


def descend(
    model: ChainModel,
    start: Knobs,
    bounds: tuple[Knobs, Knobs],
    goal: Vector,
    weights: Vector,
    *,
    seed: int,
    limits: DescentLimits,
    tick: Callable[[float], None],
    caps: Caps | None = None,
) -> Descent:
    """Move the knobs from `start`, within `bounds`, towards the goal, and keep to the caps. Raises DeviceFailed.

    Goal and weights are (features,), dB; a goal that is NaN should weigh nothing. `tick` is given the fraction done
    after each iteration; it may raise. Once one of `limits` is reached the best knobs so far are the answer; seconds
    count from the call, and the draws are made in any case.
    """
    end_s = time.monotonic() + limits.seconds
    device = model.device
    with at_work(device):
        with guarded():
            starts = _starts(start, bounds, seed)
            optimiser = _Optimiser(model, goal, weights, bounds, starts, limits.iterations, caps)
            try_draw, step = repeated(optimiser.try_draw, device), repeated(optimiser.step, device)
            for _ in range(1 + _DRAWS):
                try_draw()
            optimiser.start_from_best()
            wait_for_device(device)
        done = 0
        while done < limits.iterations and time.monotonic() < end_s:
            with guarded():
                step()
                wait_for_device(device)
            done += 1
            tick(done / limits.iterations)
        with guarded():
            return Descent(optimiser.best(), done, torch_device_name() if device.type == "cuda" else "cpu")


def _starts(start: Knobs, bounds: tuple[Knobs, Knobs], seed: int) -> list[Knobs]:
    """Where the descent may begin: `start` itself, and `start` with the compressor's settings drawn at random."""
    random = np.random.default_rng(seed)
    low, high = (bound.by_name() for bound in bounds)

    def drawn(name: str) -> NDArray[np.float64]:
        least, most = low[name].astype(np.float32), high[name].astype(np.float32)
        return (least + (most - least) * random.random(3).astype(np.float32)).astype(np.float64)

    return [
        start,
        *(replace(start, thresholds_db=drawn("thresholds_db"), slopes=drawn("slopes")) for _ in range(_DRAWS)),
    ]


class _Optimiser:
    """Adam over all knobs in one row, `_at`. `try_draw` and `step` change tensors in place and read none back."""

    def __init__(
        self,
        model: ChainModel,
        goal: Vector,
        weights: Vector,
        bounds: tuple[Knobs, Knobs],
        draws: list[Knobs],
        iterations: int,
        caps: Caps | None = None,
    ) -> None:
        self._model = model
        self._sizes = {name: values.size for name, values in draws[0].by_name().items()}
        self._goal, self._weights = model.tensor(np.nan_to_num(goal)), model.tensor(weights)
        caps = caps or Caps(goal, np.zeros((1, goal.size)), np.zeros(1))
        self._capped_goal = model.tensor(np.nan_to_num(caps.goal))
        self._rows, self._most_db = model.tensor(caps.rows), model.tensor(caps.most_db)
        self._low, self._high = (model.tensor(_row(bound)) for bound in bounds)
        self._draws = model.tensor(np.stack([_row(drawn) for drawn in draws]))
        self._schedule = model.tensor(_schedule(self._sizes, iterations))
        self._at, self._best = self._draws[0].clone(), self._draws[0].clone()
        self._least_loss = torch.full((), math.inf, device=model.device)
        self._first_moment, self._second_moment = torch.zeros_like(self._at), torch.zeros_like(self._at)
        self._count = torch.zeros(1, dtype=torch.int64, device=model.device)

    @torch.no_grad()
    def try_draw(self) -> None:
        """The loss of the next draw, which is kept if it is the best so far."""
        self._at.copy_(self._draws.index_select(0, self._count)[0])
        self._keep_best(self._loss(self._at))
        self._count.add_(1)

    @torch.no_grad()
    def start_from_best(self) -> None:
        """Begin the descent at the best of the draws."""
        self._at.copy_(self._best)
        self._count.zero_()

    def step(self) -> None:
        """One iteration: loss, gradient, best so far, and on by a step of Adam within the bounds."""
        at = self._at.detach().requires_grad_(True)
        loss = self._loss(at)
        (gradient,) = torch.autograd.grad(loss, at)
        with torch.no_grad():
            self._keep_best(loss)
            scheduled = self._schedule.index_select(0, self._count)[0]
            sizes, first_share, second_share = scheduled[:-2], scheduled[-2], scheduled[-1]
            gradient = torch.nan_to_num(gradient)
            self._first_moment.mul_(_BETA_1).add_(gradient, alpha=1 - _BETA_1)
            self._second_moment.mul_(_BETA_2).add_(gradient.square(), alpha=1 - _BETA_2)
            change = (self._first_moment / first_share) / (torch.sqrt(self._second_moment / second_share) + 1e-8)
            self._at.copy_(torch.clamp(self._at - sizes * change, self._low, self._high))
            self._count.add_(1)

    def best(self) -> Knobs:
        """The knobs with the least loss so far."""
        parts = torch.split(self._best.cpu(), list(self._sizes.values()))
        return Knobs(*(part.numpy().astype(np.float64) for part in parts))

    def _loss(self, row: Tensor) -> Tensor:
        at = dict(zip(self._sizes, torch.split(row, list(self._sizes.values())), strict=True))
        features = self._model.features(at)
        error = (features - self._goal).abs()
        excess = (self._rows @ (features - self._capped_goal).abs() - self._most_db).clamp(min=0.0).sum()
        huber = torch.where(error < _HUBER_DB, error.square() / (2 * _HUBER_DB), error - _HUBER_DB / 2)
        bends = sum(at[name].diff(n=2).abs().mean() for name in ("mid_db", "side_db"))
        reduced_db = self._model.reduced_db
        wanted = (huber * self._weights).sum() + _EXCESS_WEIGHT * excess
        return wanted + _ROUGHNESS_WEIGHT * bends + _REDUCTION_WEIGHT * reduced_db

    def _keep_best(self, loss: Tensor) -> None:
        better = loss < self._least_loss
        self._best.copy_(torch.where(better, self._at, self._best))
        self._least_loss.copy_(torch.where(better, loss, self._least_loss))


def _row(knobs: Knobs) -> NDArray[np.float64]:
    return np.concatenate(list(knobs.by_name().values()))


def _schedule(sizes: dict[str, int], iterations: int) -> NDArray[np.float64]:
    """(iterations, knobs + 2): the step size of each knob, falling by a cosine, and the share of each of Adam's two
    moments that has come together by then (its bias correction)."""
    count = np.arange(1, iterations + 1)[:, None]
    falling = 0.05 + 0.95 * 0.5 * (1 + np.cos(math.pi * count / iterations))
    first_sizes = np.repeat([_STEP_SIZES[name] for name in sizes], list(sizes.values()))
    return np.hstack([falling * first_sizes, 1 - _BETA_1**count, 1 - _BETA_2**count])
