"""Gradio without its telemetry, its stub files and a cache on disk. Import it before gradio: it reads this at import.

At every import Gradio parses the source of each of its components to write type stubs (`.pyi`) beside it. That is 2.5
of the 5.8 seconds of processor time that the import took on two busy cores, on each start of a Space, for files that
only an editor reads. And it compiles a template for the docstring of each event of each component: a third of what
then remains.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHM = Path("/dev/shm")  # noqa: S108 - RAM-backed is the point
_RAM = _SHM if _SHM.is_dir() else Path(tempfile.gettempdir())
_COMPONENTS_CLASS = "gradio.component_meta"
"""The module of the class of Gradio's component classes, which does both."""

os.environ.update(
    GRADIO_ANALYTICS_ENABLED="False",
    GRADIO_ANALYTICS_MAX_EVENTS="1",
    GRADIO_RUN_HISTORY="False",
    GRADIO_SHARE="False",
    GRADIO_MCP_SERVER="False",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    # Nothing goes through Gradio's cache; should a route of it ever be reached, its files are at least in RAM.
    GRADIO_TEMP_DIR=str(_RAM / f"mastering-space-gradio-{os.getuid()}"),
)


class _WithoutStubs(MetaPathFinder, Loader):
    """Loads Gradio's module that writes stubs and docstrings, and takes the writing out of it."""

    def __init__(self) -> None:
        self._loader: Loader | None = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _COMPONENTS_CLASS:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec) if self._loader else None

    def exec_module(self, module: ModuleType) -> None:
        if self._loader:
            self._loader.exec_module(module)
        vars(module)["create_or_modify_pyi"] = lambda *_: None
        if event := vars(module).get("EventListener"):
            event.set_doc = lambda *_, **__: None


if _COMPONENTS_CLASS not in sys.modules:
    sys.meta_path.insert(0, _WithoutStubs())
