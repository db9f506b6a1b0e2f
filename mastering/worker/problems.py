"""Refusals by HTTP status: problem+json (RFC 9457), whose `code` is a `FaultCode`."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from mastering.contract import Fault, FaultCode
from mastering.protocol.frames import SEAL_HEADER, problem_seal
from mastering.worker.response import HEADERS

_HTTP_STATUS = {
    FaultCode.BAD_REQUEST: 400,
    FaultCode.BAD_SETTINGS: 400,
    FaultCode.TOO_LARGE: 413,
    FaultCode.UNKNOWN_KIND: 422,
    FaultCode.BUSY: 503,
    FaultCode.DEADLINE: 408,
}


def problem_response(fault: Fault, key: bytes | None, status: int | None = None) -> Response:
    """`fault` as a response, sealed by `key`. `Connection: close`: a caller need not send the rest of its upload."""
    headers = {**HEADERS, "connection": "close"}
    if "retry_after_s" in fault.numbers:
        headers["retry-after"] = str(fault.numbers["retry_after_s"])
    status = status or _HTTP_STATUS.get(fault.code, 500)
    body = {
        "title": fault.code,
        "status": status,
        "code": fault.code,
        "detail": fault.message,
        "numbers": fault.numbers,
    }
    response = JSONResponse(body, status, headers, media_type="application/problem+json")
    if key is not None:
        response.headers[SEAL_HEADER] = problem_seal(key, status, bytes(response.body))
    return response
