"""A recursive filter as matrix products: many samples at a time instead of one after the other.

The cascade of second-order sections is written as a state space (x[n+1] = A x[n] + B u[n], y[n] = C x[n] + D u[n]) and
"lifted" to rows of `_ROW` samples: what a row gives by itself is one product with the lower triangle of the impulse
response, what it inherits is a product with the four states at its start (Burrus, "Block realization of digital
filters", IEEE Trans. Audio Electroacoust. 20, 1972). Only the states run one after the other, once a row; in the
coordinates of A's eigenvectors they do not mix, and of each conjugate pair one is enough.

For metering: samples and products are float32, the states float64. The error is below −110 dB of the signal; matrix
libraries may differ in the last bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mastering.dsp.one_pole import one_pole
from mastering.dsp.stream import Samples

_ROW = 64
_ROWS_AT_ONCE = 256
"""So few that all the steps of one part stay in the processor's cache."""


class RecursiveFilter:
    """`sos`: second-order sections whose poles are complex. Feed pieces in order, each a multiple of `row` frames."""

    row = _ROW

    def __init__(self, sos: NDArray[np.float64], channels: int) -> None:
        a, b, c, d = _state_space(sos)
        powers = [np.eye(len(a))]
        for _ in range(_ROW):
            powers.append(a @ powers[-1])
        impulse = np.array([d, *(c @ power @ b for power in powers[: _ROW - 1])])
        lag = np.arange(_ROW)[None, :] - np.arange(_ROW)[:, None]
        self._own = np.where(lag >= 0, impulse[lag], 0.0).astype(np.float32)
        self._inherited = np.array([c @ power for power in powers[:_ROW]]).T.astype(np.float32)
        poles, vectors = np.linalg.eig(a)
        one_of_each = poles.imag > 0
        inputs = np.array([power @ b for power in powers[_ROW - 1 :: -1]]) @ np.linalg.inv(vectors)[one_of_each].T
        self._poles = poles[one_of_each] ** _ROW
        # Complex numbers as pairs of real ones, as they lie in memory.
        self._inputs = np.ascontiguousarray(inputs).view(np.float64).astype(np.float32)
        self._to_states = 2 * np.ascontiguousarray(vectors[:, one_of_each].conj()).view(np.float64).T
        self._modes = np.zeros((channels, len(self._poles)), np.complex128)

    def power(self, block: Samples, weights: NDArray[np.float32]) -> Samples:
        """(channels, frames) → the weighted sum of the squared, filtered channels, frame by frame."""
        rows = block.reshape(len(block), -1, _ROW)
        states = self._states(rows)
        total = np.empty(rows.shape[1:], np.float32)
        for start in range(0, rows.shape[1], _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            filtered = np.matmul(rows[:, part], self._own)
            filtered += states[:, part] @ self._inherited
            np.square(filtered, out=filtered)
            np.einsum("c,crf->rf", weights, filtered, out=total[part])
        return total.reshape(-1)

    def _states(self, rows: Samples) -> Samples:
        """The filter's states at the start of each row, from what each row adds to them. Shape (channels, rows, 4)."""
        added = (rows @ self._inputs).astype(np.float64).view(np.complex128)
        modes = np.empty_like(added)
        modes[:, 0] = self._modes
        for index, pole in enumerate(self._poles):
            following = one_pole(np.ascontiguousarray(added[:, :, index]), pole, self._modes[:, index, None])
            modes[:, 1:, index] = following[:, :-1]
            self._modes[:, index] = following[:, -1]
        states: Samples = (modes.view(np.float64) @ self._to_states).astype(np.float32)
        return states


def _state_space(
    sos: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """(A, B, C, D) of the sections one after the other, each in the transposed direct form II."""
    a, b, c, d = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    for b0, b1, b2, _, a1, a2 in sos:
        step, gain = np.array([[-a1, 1.0], [-a2, 0.0]]), np.array([b1 - a1 * b0, b2 - a2 * b0])
        a = np.block([[a, np.zeros((len(b), 2))], [np.outer(gain, c), step]])
        b, c, d = np.concatenate([b, gain * d]), np.concatenate([b0 * c, [1.0, 0.0]]), b0 * d
    return a, b, c, d
