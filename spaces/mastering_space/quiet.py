"""Gradio without its telemetry and with a cache folder in RAM. Import it before gradio: it reads these at import."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_SHM = Path("/dev/shm")  # noqa: S108 - RAM-backed is the point
_RAM = _SHM if _SHM.is_dir() else Path(tempfile.gettempdir())

os.environ.update(
    GRADIO_ANALYTICS_ENABLED="False",
    GRADIO_ANALYTICS_MAX_EVENTS="1",
    GRADIO_RUN_HISTORY="False",
    GRADIO_SHARE="False",
    GRADIO_MCP_SERVER="False",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    # Nothing goes through Gradio's cache; should a door of it ever open, its files are at least in RAM.
    GRADIO_TEMP_DIR=str(_RAM / f"mastering-space-gradio-{os.getuid()}"),
)
