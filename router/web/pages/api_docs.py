"""The API's description for people, made from the one for programs; and a page for each error's `type`."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response

from router.core.errors import TABLE, Problem
from router.web.pages.pages import ASK_FIRST, StaticFile, answer, rendered

router = APIRouter(include_in_schema=False)

_METHODS = ("post", "put", "patch", "get", "head", "delete", "options")


class Operation(NamedTuple):
    """One method of one address, as the page shows it."""

    method: str
    path: str
    text: str
    fields: list[tuple[str, str]]
    answers: list[tuple[str, str]]


@router.api_route("/docs", methods=["GET", "HEAD"])
def handbook(request: Request) -> Response:
    return answer(request, _handbook(request.app), ASK_FIRST)


@router.api_route("/errors/{code}", methods=["GET", "HEAD"])
def error(request: Request, code: str) -> Response:
    """What a problem's `type` points at."""
    if code not in TABLE:
        raise Problem("not_found", "There is no such error.")
    return answer(request, rendered("error.html", code=code, row=TABLE[code]), ASK_FIRST)


@cache
def _handbook(app: Any) -> StaticFile:
    schema = app.openapi()
    return rendered("handbook.html", operations=_operations(schema), errors=TABLE, title=schema["info"]["title"])


def _operations(schema: dict[str, Any]) -> list[Operation]:
    return [
        Operation(
            method.upper(),
            path,
            item[method].get("description", ""),
            _fields(schema, item[method]),
            _answers(item[method]),
        )
        for path, item in schema["paths"].items()
        for method in _METHODS
        if method in item
    ]


def _fields(schema: dict[str, Any], operation: dict[str, Any]) -> list[tuple[str, str]]:
    """Headers, query parameters and the members of a JSON body, each with what is said of it."""
    found = [
        (p["name"], f"{p['in']} {p.get('description', '')}".strip())
        for p in operation.get("parameters", [])
        if p["in"] != "path"
    ]
    body = operation.get("requestBody", {}).get("content", {})
    for media_type, content in body.items():
        members = _members(schema, content.get("schema", {}))
        found += members or [("body", media_type)]
    return found


def _members(schema: dict[str, Any], body: dict[str, Any]) -> list[tuple[str, str]]:
    named = [body, *body.get("anyOf", [])]
    name = next((part["$ref"].rpartition("/")[2] for part in named if "$ref" in part), None)
    properties = schema["components"]["schemas"][name].get("properties", {}) if name else {}
    return [(key, str(value.get("description", ""))) for key, value in properties.items()]


def _answers(operation: dict[str, Any]) -> list[tuple[str, str]]:
    return [(status, said["description"].replace("`", "")) for status, said in operation["responses"].items()]
