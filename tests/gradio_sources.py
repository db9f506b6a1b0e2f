"""Gradio's sources, read ahead, in a process whose forks import Gradio.

Whenever it is imported it takes the source of each of its components apart, twice, to keep .pyi files up to date: 3 of
the 4 seconds of its import. What it finds is the same each time, so it is kept here and inherited by the forks.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ast.parse = cache(ast.parse)  # type: ignore[assignment]
ast._splitlines_no_ff = cache(ast._splitlines_no_ff)  # type: ignore[attr-defined]

_found = find_spec("gradio")
assert _found is not None
assert _found.origin is not None
for _interface in Path(_found.origin).parent.rglob("*.pyi"):  # none yet where it was never imported
    for _file in filter(Path.exists, (_interface, _interface.with_suffix(".py"))):
        _text = _file.read_text("utf-8")
        _class = next((node for node in ast.walk(ast.parse(_text)) if isinstance(node, ast.ClassDef)), None)
        if _class is not None:
            ast.get_source_segment(_text, _class)
