"""A Space on free CPU hardware: the last tier."""

import mastering_space.gradio_environment  # noqa: F401 - it must come before gradio
from mastering_space.server import serve

serve("cpu")
