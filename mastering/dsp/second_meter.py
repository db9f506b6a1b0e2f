"""A second opinion on a master's loudness, by pyloudnorm: another program, so that no error of ours hides in both.

With De Man's filter, which agrees with libebur128 to 0.001 LU (pyloudnorm's default reads 0.04 LU low). It wants the
whole signal at once as float64 and takes longer than all our own meters: for reports, not for every render.
"""

from __future__ import annotations

import math

import numpy as np
import pyloudnorm

from mastering.dsp.stream import Samples


def independent_lufs(samples: Samples, rate_hz: int) -> float | None:
    """Integrated loudness of (channels, frames); None for what is too short or too quiet to have one."""
    if samples.shape[1] < 0.4 * rate_hz:
        return None
    # A fresh meter each time: a shared one misreads under threads.
    meter = pyloudnorm.Meter(rate_hz, filter_class="DeMan")
    found = float(meter.integrated_loudness(samples.T.astype(np.float64)))
    return found if math.isfinite(found) else None
