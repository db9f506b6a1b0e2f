"""The table of errors: complete, documented, used, and the only source of codes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mastering.contract import USER_FAULTS, FaultCode
from router.core.errors import TABLE, Blame, Problem

ROOT = Path(__file__).parents[3]


def sources() -> list[Path]:
    return [path for path in (ROOT / "router").rglob("*.py") if path.name != "errors.py"]


def raised_codes() -> set[str]:
    """First arguments of `Problem(…)` that are literals, conditional ones included."""
    found: set[str] = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Problem"
                and node.args
            ):
                found |= {part.value for part in ast.walk(node.args[0]) if _is_text(part)}  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("code", TABLE)
def test_every_row_is_whole(code: str) -> None:
    row = TABLE[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert 400 <= row.status < 600
    assert row.title[0].isupper()
    assert not row.title.endswith(".")
    assert row.retry[0].islower()
    assert (row.blame is Blame.SERVICE) == (row.status >= 500)


def test_every_code_that_is_raised_is_in_the_table() -> None:
    assert raised_codes() <= set(TABLE)


def test_every_fault_of_the_engine_is_in_the_table_and_blames_the_right_side() -> None:
    for code in FaultCode:
        assert str(code) in TABLE
    for fault in USER_FAULTS:
        assert TABLE[str(fault)].blame is Blame.USER


def test_every_code_is_used_somewhere() -> None:
    texts = [path.read_text() for path in sources()]
    assert {code for code in TABLE if not any(f'"{code}"' in text for text in texts)} <= set(FaultCode)


@pytest.mark.parametrize("code", TABLE)
def test_every_code_is_documented_with_its_status(code: str) -> None:
    documented = (ROOT / "docs" / "errors.md").read_text()
    line = next(line for line in documented.splitlines() if f"`{code}`" in line)
    assert str(TABLE[code].status) in line
    assert TABLE[code].title in line


def test_a_problem_writes_itself_out_with_its_numbers() -> None:
    problem = Problem("too_large", "12 bytes are too many; 10 are allowed.", size_bytes=12, allowed_bytes=10)
    assert problem.body() == {
        "type": "/errors/too_large",
        "title": "The file is too large",
        "status": 413,
        "code": "too_large",
        "detail": "12 bytes are too many; 10 are allowed.",
        "size_bytes": 12,
        "allowed_bytes": 10,
    }


def test_a_problem_without_a_sentence_says_its_title_and_the_cure() -> None:
    assert Problem("gone").body()["detail"] == "No longer here: send the song again."


def test_a_code_that_is_not_in_the_table_becomes_internal_and_tells_nothing() -> None:
    problem = Problem("made_up", "the secret at /root", secret="x")
    assert problem.body()["code"] == "internal"
    assert "secret" not in str(problem.body())
