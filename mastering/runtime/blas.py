"""Limits OpenBLAS and OpenMP to one thread a process. Call it before numpy is imported.

OpenBLAS starts a thread for each core, which spin while they wait for the next product. The engine's products are small
and it has threads of its own (`mastering.dsp.threads`): with two of OpenBLAS's, four minutes of music took 40 % more
CPU and no less time, and each core more is one more that spins.
"""

from __future__ import annotations

import os


def one_thread() -> None:
    """Set both libraries to one thread, unless the environment says another number."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
