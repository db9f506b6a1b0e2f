"""A filter of one pole, y[n] = x[n] + p y[n-1], over whole arrays at a time.

By doubling (the parallel prefix of Hillis and Steele, "Data parallel algorithms", CACM 29, 1986): once y holds the sum
of the last m inputs, y[n] + p^m y[n-m] holds that of the last 2 m. A handful of additions of arrays do what a loop over
samples would. scipy.signal.lfilter would do it too, but to import it takes half a second and 50 MB, and every song has
a process of its own.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Values = TypeVar("Values", NDArray[np.float64], NDArray[np.complex128])

_FORGOTTEN = 1e-18
"""A share of the past that float64 does not tell from none."""


def one_pole(x: Values, pole: complex, before: Values) -> Values:
    """y[n] = x[n] + pole · y[n-1] along the last axis, with `before` (..., 1) as what came before the first.

    `pole`: inside the unit circle; complex only where `x` is.
    """
    y: Any = x.copy()
    y[..., :1] += pole * before
    reach, share = 1, pole
    while reach < y.shape[-1] and abs(share) > _FORGOTTEN:
        y[..., reach:] += share * y[..., :-reach]
        reach, share = 2 * reach, share * share
    filtered: Values = y
    return filtered
