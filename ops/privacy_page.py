"""Makes docs/privacy.md: every promise with the tests that keep it, found by their names.

`mismatches` names the promises without a test and the tests without a promise.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from router.privacy.register import Promise, promises

ROOT = Path(__file__).parent.parent
_IDS = re.compile(r"^test_((?:p\d\d_)+)")


def named_tests(root: Path = ROOT) -> dict[str, list[str]]:
    """Id of a promise → the tests named after it, as paths or `path::function`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((root / "tests").rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        where = str(path.relative_to(root))
        names = {"": path.stem} | {f"::{name}": name for name in _functions(path)}
        for tail, name in names.items():
            for promise in _ids(name):
                found[promise].append(where + tail)
    return found


def mismatches(root: Path = ROOT) -> list[str]:
    """Where the register and the tests do not fit, one sentence each."""
    named = named_tests(root)
    wrong = [f"{known} is in a test's name and not in the register." for known in named if known not in promises()]
    for promise in promises().values():
        wrong += [f"{promise.id}: {test} does not exist." for test in promise.tests if not _exists(root, test)]
        if promise.kind == "S" and not (named.get(promise.id) or promise.tests or promise.reason):
            wrong.append(f"{promise.id} has neither a test nor a reason for having none.")
    return wrong


def page(root: Path = ROOT) -> str:
    named = named_tests(root)
    lines = [
        "# The promises and what keeps them",
        "",
        "Made from `router/privacy/register.toml` and the names of the tests. S: kept by software and tested. P: also",
        "up to the installation; `router privacy selfcheck` looks at it. L: text alone, on the page /privacy.",
        "",
        "| id | kind | promise | kept by |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {p.id} | {p.kind} | {p.says} | {_kept_by(p, named.get(p.id, []))} |" for p in promises().values()]
    return "\n".join(lines) + "\n"


def _kept_by(promise: Promise, named: list[str]) -> str:
    kept = [_link(test) for test in dict.fromkeys([*named, *promise.tests])]
    if promise.check:
        kept.append(f"selfcheck: {promise.check}")
    if promise.reason:
        kept.append(promise.reason)
    return "<br>".join(kept) or "the policy's text"


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{name or Path(path).stem}](../{path})"


def _exists(root: Path, test: str) -> bool:
    path, _, name = test.partition("::")
    return (root / path).is_file() and (not name or name in _functions(root / path))


def _functions(path: Path) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _ids(name: str) -> list[str]:
    match = _IDS.match(name)
    return [part.upper() for part in match[1].rstrip("_").split("_")] if match else []
