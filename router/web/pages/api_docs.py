"""The API's documentation pages: `/docs`, made from the OpenAPI schema, and `/errors/…` for each problem type."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response

from router.core.errors import TABLE, Problem
from router.web.pages.html_templates import rendered
from router.web.pages.static_files import REVALIDATE, StaticFile, file_response

router = APIRouter(include_in_schema=False)

_METHODS = ("post", "put", "patch", "get", "head", "delete", "options")


class ApiOperation(NamedTuple):
    """One method of one path, as the page shows it."""

    method: str
    path: str
    text: str
    fields: list[tuple[str, str]]
    answers: list[tuple[str, str]]


@router.get("/docs")
def docs(request: Request) -> Response:
    return file_response(request, _docs_page(request.app), REVALIDATE)


@router.get("/errors/{code}")
def error_page(request: Request, code: str) -> Response:
    """The page that a problem's `type` points at: what the error means and whose fault it is."""
    if code not in TABLE:
        raise Problem("not_found", "There is no such error.")
    return file_response(request, rendered("error.html", code=code, row=TABLE[code]), REVALIDATE)


@cache
def _docs_page(app: Any) -> StaticFile:
    schema = app.openapi()
    return rendered("api_docs.html", operations=_operations(schema), errors=TABLE, title=schema["info"]["title"])


def _operations(schema: dict[str, Any]) -> list[ApiOperation]:
    return [
        ApiOperation(
            method.upper(),
            path,
            item[method].get("description", ""),
            _request_fields(schema, item[method]),
            _status_codes(item[method]),
        )
        for path, item in schema["paths"].items()
        for method in _METHODS
        if method in item
    ]


def _request_fields(schema: dict[str, Any], operation: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and description of each header, query parameter and member of a JSON body."""
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


def _status_codes(operation: dict[str, Any]) -> list[tuple[str, str]]:
    return [(status, response["description"].replace("`", "")) for status, response in operation["responses"].items()]
