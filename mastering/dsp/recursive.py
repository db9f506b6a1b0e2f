"""A recursive filter as matrix products: many samples at a time instead of one after the other.

The cascade of second-order sections is written as a state space (x[n+1] = A x[n] + B u[n], y[n] = C x[n] + D u[n]) and
"lifted" to rows of samples: what a row gives by itself is one product with the lower triangle of the impulse response,
what it inherits is a product with the four states at its start (Burrus, "Block realization of digital filters", IEEE
Trans. Audio Electroacoust. 20, 1972). Only the states run one after the other, once a row, and they are lifted in turn.

For metering: samples and products are float32, the states float64. The error is below −110 dB of the signal; matrix
libraries may differ in the last bits.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mastering.dsp.stream import Samples

_ROWS_AT_ONCE = 1024
"""So few that all the steps of one part stay in the processor's cache."""
_STEPS = 16

Matrix = NDArray[np.float64]


class RecursiveFilter:
    """`sos`: second-order sections; `row`: frames that are worked on at once. Feed pieces of any length in order."""

    def __init__(self, sos: Matrix, channels: int, row: int = 64) -> None:
        a, b, c, d = _state_space(sos)
        powers = _powers(a, row)
        impulse = np.array([d, *(c @ power @ b for power in powers[: row - 1])])
        lag = np.arange(row)[None, :] - np.arange(row)[:, None]
        own = np.where(lag >= 0, impulse[lag], 0.0)
        inherited = np.array([c @ power for power in powers[:row]]).T
        self.row = row
        self._matrix = np.concatenate([own, inherited]).astype(np.float32)
        self._inputs = np.array([power @ b for power in powers[row - 1 :: -1]]).astype(np.float32)
        self._steps = _Steps(powers[row])
        self._state = np.zeros((channels, len(a)))
        self._held: Samples = np.zeros((channels, 0), np.float32)

    @property
    def held_frames(self) -> int:
        """Frames that wait for the rest of their row."""
        return int(self._held.shape[1])

    def energies(self, block: Samples, weights: NDArray[np.float32]) -> Samples:
        """(channels, frames) → the weighted sum of the squares of the filtered channels, row by row. Shape (rows,)."""
        rows = self._rows(block)
        flat = rows.reshape(-1, rows.shape[2])
        energies = np.empty(len(flat), np.float32)
        room = np.empty((min(_ROWS_AT_ONCE, len(flat)), self.row), np.float32)
        for start in range(0, len(flat), _ROWS_AT_ONCE):
            part = flat[start : start + _ROWS_AT_ONCE]
            filtered = np.matmul(part, self._matrix, out=room[: len(part)])
            np.einsum("rf,rf->r", filtered, filtered, out=energies[start : start + len(part)])
        return weights @ energies.reshape(rows.shape[:2])

    def power(self, block: Samples, weights: NDArray[np.float32]) -> Samples:
        """The same frame by frame, of all whole rows. Shape (frames,)."""
        filtered = self._rows(block) @ self._matrix
        total: Samples = np.einsum("c,crf->rf", weights, np.square(filtered, out=filtered))
        return total.reshape(-1)

    def _rows(self, block: Samples) -> Samples:
        """What is held and `block`, row by row, each with the states at its start: (channels, rows, row + states)."""
        held, row = self.held_frames, self.row
        count = (held + block.shape[1]) // row
        rows = np.empty((len(block), count, len(self._matrix)), np.float32)
        taken = 0
        if held and count:
            taken = row - held
            rows[:, 0, :held], rows[:, 0, held:row] = self._held, block[:, :taken]
        whole = max(count - bool(held), 0) * row
        rows[:, count - whole // row :, :row] = block[:, taken : taken + whole].reshape(len(block), -1, row)
        left = block[:, taken + whole :]
        self._held = left.copy() if count or not held else np.concatenate([self._held, left], axis=1)
        added = rows[:, :, :row] @ self._inputs
        rows[:, :, row:], self._state = self._steps.run(added, self._state)
        return rows


class _Steps:
    """s[n+1] = M s[n] + u[n] over whole arrays: groups of steps by one product, their starts by the same again."""

    def __init__(self, step: Matrix) -> None:
        powers = _powers(step, _STEPS)
        nothing = np.zeros_like(step)
        within = [[powers[n - 1 - m].T if m < n else nothing for n in range(_STEPS)] for m in range(_STEPS)]
        self._own = np.block(within)
        self._inherited = np.hstack([power.T for power in powers[:_STEPS]])
        self._added = np.vstack([power.T for power in powers[_STEPS - 1 :: -1]])
        self._whole = powers[_STEPS]

    @cached_property
    def _groups(self) -> _Steps:
        return _Steps(self._whole)

    def run(self, added: NDArray[np.floating], start: Matrix) -> tuple[Matrix, Matrix]:
        """The states before each step, and after the last.

        `added` (channels, steps, states), `start` (channels, states).
        """
        channels, steps, states = added.shape
        groups = steps // _STEPS + 1
        padded = np.zeros((channels, groups * _STEPS, states))
        padded[:, :steps] = added
        grouped = padded.reshape(channels, groups, -1)
        starts = start[:, None] if groups == 1 else self._groups.run(grouped @ self._added, start)[0]
        within = grouped @ self._own
        within += starts @ self._inherited
        before = within.reshape(channels, -1, states)
        return before[:, :steps], before[:, steps]


def _powers(matrix: Matrix, most: int) -> list[Matrix]:
    """The powers of `matrix` from 0 to `most`."""
    powers = [np.eye(len(matrix))]
    for _ in range(most):
        powers.append(matrix @ powers[-1])
    return powers


def _state_space(sos: Matrix) -> tuple[Matrix, Matrix, Matrix, float]:
    """(A, B, C, D) of the sections one after the other, each in the transposed direct form II."""
    a, b, c, d = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    for b0, b1, b2, _, a1, a2 in sos:
        step, gain = np.array([[-a1, 1.0], [-a2, 0.0]]), np.array([b1 - a1 * b0, b2 - a2 * b0])
        a = np.block([[a, np.zeros((len(b), 2))], [np.outer(gain, c), step]])
        b, c, d = np.concatenate([b, gain * d]), np.concatenate([b0 * c, [1.0, 0.0]]), b0 * d
    return a, b, c, d
