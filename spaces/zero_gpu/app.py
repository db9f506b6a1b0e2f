"""A Space on ZeroGPU: the tier between the managed workers and the CPU Space."""

import mastering_space.gradio_environment  # noqa: F401 - it must come before gradio
import spaces  # it must come before torch and gradio
from mastering_space import gpu_descent
from mastering_space.server import serve

serve("zero_gpu", spaces.GPU(duration=gpu_descent.duration_s)(gpu_descent.run_descent))
