"""A Space on ZeroGPU: the tier between the managed workers and the CPU Space."""

import mastering_space.quiet  # noqa: F401 - it must come before gradio
import spaces  # it must come before torch and gradio
from mastering_space import descent
from mastering_space.server import serve

serve("zero_gpu", spaces.GPU(duration=descent.duration_s)(descent.descend))
