"""Gradient descent over what the closed form leaves open of a plan. The only door to torch.

`Chain` (`chain`) is a stand-in for the chain that can be differentiated; `descend` (`descent`) moves the knobs of the
plan on it; `device` says where that happens, and has a GPU replay what it is asked for again and again.
"""

from mastering.fit.chain import Chain, Knobs, Scene
from mastering.fit.descent import Descent, KnobLimits, descend
from mastering.fit.device import DeviceFailed, device_name, guarded
from mastering.fit.warm import warm_up

__all__ = [
    "Chain",
    "Descent",
    "DeviceFailed",
    "KnobLimits",
    "Knobs",
    "Scene",
    "descend",
    "device_name",
    "guarded",
    "warm_up",
]
