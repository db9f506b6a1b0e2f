"""Warming up the GPU before a song comes: its context, its libraries, the kernels of an iteration, one recording.

All of these are loaded when they are first used, which on a GPU takes longer than a descent does. So a short descent is
made on noise as long as the stretches that songs are fitted on: kernels are chosen by size.
"""

from __future__ import annotations

import numpy as np
import torch

from mastering.dsp.contour import Contour, hop_frames
from mastering.dsp.dynamics import Compressor
from mastering.dsp.features import Layout
from mastering.dsp.spectrum import bin_frequencies_hz
from mastering.fit.chain_model import ChainModel, Knobs, PlannedSong
from mastering.fit.descent import Descent, DescentLimits, descend
from mastering.fit.device import default_device, guarded, torch_device_name

_RATE_HZ = 44_100
_NOISE_S = 120.0
_SHORT = DescentLimits(iterations=4)


def warm_up() -> str:
    """Make a short descent where torch can use a GPU; the device's name. Raises DeviceFailed."""
    if torch.cuda.is_available():
        short_descent(default_device())
    return torch_device_name()


def short_descent(device: torch.device) -> Descent:
    """A descent of a few iterations on noise, after which the device keeps what was loaded and none of the memory."""
    goal, start, bounds = np.zeros(Layout(_RATE_HZ).size), all_knobs(0.0), (all_knobs(-1.0), all_knobs(1.0))
    model = ChainModel(noise(), device)
    model.read(start)
    found = descend(model, start, bounds, goal, goal + 1, seed=1, limits=_SHORT, tick=lambda fraction: None)
    del model
    with guarded():
        torch.cuda.empty_cache()
    return found


def noise(seconds: float = _NOISE_S) -> PlannedSong:
    """`seconds` of noise with a plan that changes nothing but by its compressor."""
    random, layout, bins = np.random.default_rng(1), Layout(_RATE_HZ), bin_frequencies_hz(_RATE_HZ).size
    blocks = int(seconds * _RATE_HZ / hop_frames(_RATE_HZ))
    power = random.exponential(1e-3, (blocks, 2, layout.centres_hz.size)).astype(np.float32)
    return PlannedSong(
        contour=Contour(_RATE_HZ, power, np.sqrt(power.sum(axis=(1, 2)))),
        power=np.full((2, bins), 1e-6),
        lufs=-20.0,
        features=np.zeros(layout.size),
        tone_db=np.zeros((2, bins)),
        compressor=Compressor(-20.0, -20.0, -20.0),
        saturated_peak=1.0,
        loudness_lufs=-14.0,
        ceiling_dbtp=-1.0,
    )


def all_knobs(value: float) -> Knobs:
    """All knobs at one value."""
    bands, three = np.full(Layout(_RATE_HZ).centres_hz.size, value), np.full(3, value)
    return Knobs(bands, bands, three, three, three, three, np.array([value]))
