"""Refusals as ``application/problem+json`` (RFC 9457); `code` is one of the contract's."""

from __future__ import annotations

import json

from starlette.responses import Response

from mastering.contract import Fault, FaultCode

_STATUS = {FaultCode.TOO_LARGE: 413, FaultCode.BUSY: 503, FaultCode.DEADLINE: 408, FaultCode.BAD_REQUEST: 400}
_TITLES = {401: "Not allowed", 403: "Not from here", 404: "Not found", 409: "Already there", 413: "Too large"}


def problem(fault: Fault, status: int | None = None) -> Response:
    """The response for a fault. It closes the connection, so that a caller need not send the rest of an upload."""
    status = status or _STATUS.get(fault.code, 500)
    headers = {"cache-control": "no-store", "connection": "close"}
    if "retry_after_s" in fault.numbers:
        headers["retry-after"] = str(fault.numbers["retry_after_s"])
    title = _TITLES.get(status, fault.code.replace("_", " ").capitalize())
    body = {"title": title, "status": status, "code": fault.code, "detail": fault.message, "numbers": fault.numbers}
    return Response(json.dumps(body, ensure_ascii=False), status, headers, "application/problem+json")


def refused(status: int, detail: str) -> Response:
    """The response for a request that is none of a job's faults."""
    return problem(Fault(FaultCode.BAD_REQUEST, detail), status)
