"""The one module that writes errors out: ``application/problem+json`` (RFC 9457), whatever was raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from router.core.errors import TABLE, Problem

MEDIA_TYPE = "application/problem+json"
_BY_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    401: "sign_in",
    416: "range_not_satisfiable",
    413: "too_large",
    408: "upload_timeout",
}


def respond(problem: Problem) -> Response:
    """The response that says `problem`."""
    headers = {"cache-control": "no-store", **problem.headers}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(problem.retry_after_s)))
    body = json.dumps(problem.body(), ensure_ascii=False)
    return Response(body, problem.row.status, headers, media_type=MEDIA_TYPE)


def as_bytes(problem: Problem, headers: Mapping[str, str]) -> bytes:
    """The whole response with its head, for a caller whose request could not be parsed."""
    response = respond(problem)
    lines = {**response.headers, **headers, "connection": "close"}
    head = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode("latin-1") + b"\r\n" + bytes(response.body)


def install(app: FastAPI, methods_at: Callable[[str], Iterable[str]] | None = None) -> None:
    """Have `app` answer every exception that says what was wrong; `security_headers.RequestGuard` answers others.

    `methods_at` gives the methods of a path: the framework names only those of the first route that it finds.
    """

    @app.exception_handler(Problem)
    async def _known(_: Request, problem: Problem) -> Response:
        return respond(problem)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        response = respond(Problem(_BY_STATUS.get(error.status_code, "bad_request")))
        response.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and methods_at is not None:
            response.headers["allow"] = ", ".join(sorted(methods_at(request.scope["path"])))
        return response

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(_invalid_request(error, request.headers.get("content-type", "")))


def _invalid_request(error: RequestValidationError, content_type: str) -> Problem:
    """The problem with a request's first wrong field: its name and what it takes, never the value that was sent."""
    first = error.errors()[0]
    if first["loc"][0] == "body" and "json" not in content_type.lower():
        sentence = "Send JSON and say so by Content-Type: application/json, as curl --json '{}' URL does."
        return Problem("unsupported_media_type", sentence)
    if first["type"] == "json_invalid":
        reason, index = first.get("ctx", {}).get("error", "it ends too soon"), int(first["loc"][-1])
        return Problem("bad_settings", f"The body is not JSON: {reason}, at character {index + 1}.", field="")
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    code = "bad_settings" if first["loc"][0] == "body" else "bad_request"
    return Problem(code, f"{where or 'The body'}: {first['msg']}.", field=where)


def responses(*codes: str) -> dict[int | str, dict[str, object]]:
    """The `responses=` of an endpoint, for the API's description."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(TABLE[code].status, []).append(f"`{code}`: {TABLE[code].title}")
    schema = {"type": "object", "required": ["type", "title", "status", "code", "detail"]}
    return {
        status: {"description": "; ".join(texts), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, texts in by_status.items()
    }


COMMON_RESPONSES = responses(
    "bad_request",
    "sign_in",
    "bad_token",
    "foreign_origin",
    "token_scope",
    "foreign_host",
    "bad_settings",
    "unsupported_media_type",
    "internal",
)
"""What every endpoint can answer, whatever else it does."""
