"""Gradient descent over the numbers of a plan that its closed form leaves open. The only room that imports torch.

`ChainModel` (`chain_model`) is a differentiable model of the mastering chain; `descend` (`descent`) moves the open
numbers ("knobs") on it; `device` says where that is computed, and has a GPU replay an iteration instead of being asked
for each operation; `warm_up` loads everything that a first descent would wait for.
"""

from mastering.fit.chain_model import ChainModel, Knobs, PlannedSong
from mastering.fit.descent import Caps, Descent, DescentLimits, descend
from mastering.fit.device import DeviceFailed, guarded, torch_device_name
from mastering.fit.device_warm_up import warm_up

__all__ = [
    "Caps",
    "ChainModel",
    "Descent",
    "DescentLimits",
    "DeviceFailed",
    "Knobs",
    "PlannedSong",
    "descend",
    "guarded",
    "torch_device_name",
    "warm_up",
]
