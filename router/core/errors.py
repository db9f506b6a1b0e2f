"""Every error a person or a program can get from this service, in one table.

A `Problem` is raised anywhere in the router; `http.problems` is the one place that writes it out as
``application/problem+json`` (RFC 9457). Unknown exceptions become `internal`: the log gets the type, the person no
detail.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class Blame(StrEnum):
    """Who can do something about an error."""

    USER = "user"
    SERVICE = "service"


class Row(NamedTuple):
    """What the table says of one error code; `status` is the HTTP status."""

    status: int
    title: str
    blame: Blame
    retry: str
    """What the caller can do, in a few words; shown in the docs."""


_U, _S = Blame.USER, Blame.SERVICE

TABLE: dict[str, Row] = {
    # The file.
    "empty_file": Row(422, "The file is empty", _U, "send another file"),
    "unsupported_format": Row(422, "Not an audio format we can read", _U, "send WAV, FLAC, MP3, Ogg, AIFF or M4A"),
    "undecodable": Row(422, "The audio can't be decoded", _U, "export the file again"),
    "truncated": Row(422, "The audio is cut short", _U, "send the whole file"),
    "not_finite": Row(422, "The audio holds invalid samples", _U, "export the file again"),
    "silent": Row(422, "The audio is silent", _U, "send audio that can be heard"),
    "too_short": Row(422, "The audio is too short", _U, "send a longer file"),
    "too_long": Row(422, "The audio is too long", _U, "split the file"),
    "too_large": Row(413, "The file is too large", _U, "send a smaller file or a compressed format"),
    "too_many_channels": Row(422, "Too many channels", _U, "mix down to stereo"),
    "unsupported_rate": Row(422, "Unsupported sample rate", _U, "resample the file"),
    "resource_limit": Row(422, "The file asks for too much to decode", _U, "export the file again"),
    # The request.
    "bad_settings": Row(422, "The settings are not valid", _U, "correct the settings"),
    "bad_request": Row(400, "The request is not valid", _U, "correct the request"),
    "not_found": Row(404, "Nothing here", _U, "check the address"),
    "method_not_allowed": Row(405, "That method is not offered here", _U, "see the API's description"),
    "length_required": Row(411, "The size is not stated", _U, "send Content-Length or size_bytes"),
    "offset_mismatch": Row(409, "The upload continues elsewhere", _U, "ask for the offset with HEAD, continue there"),
    "upload_in_progress": Row(409, "The upload is already running", _U, "wait for it or cancel the job"),
    "not_ready": Row(409, "The job is not ready for that", _U, "wait for the job to reach that state"),
    "idempotency_conflict": Row(422, "The Idempotency-Key was used for another request", _U, "use a new key"),
    "gone": Row(410, "No longer here", _U, "send the song again"),
    "foreign_origin": Row(403, "Requests from other sites are refused", _U, "use the page itself"),
    "foreign_host": Row(421, "This host name is not served here", _U, "use the configured address"),
    "sign_in": Row(401, "Sign in first", _U, "sign in, or send a personal token"),
    "bad_token": Row(401, "That token is not valid", _U, "make a new token on the account page"),
    "token_scope": Row(403, "The token does not cover that", _U, "use a token of the scope `jobs`"),
    "session_only": Row(403, "Only for people who are signed in", _U, "sign in on the page; no token can do this"),
    "sign_in_failed": Row(400, "The sign-in did not succeed", _U, "sign in again"),
    "sign_in_unavailable": Row(503, "The sign-in provider can't be reached", _S, "try again in a minute"),
    "too_many_tokens": Row(409, "Too many tokens", _U, "revoke one first"),
    "too_many_jobs": Row(429, "Too many jobs at once", _U, "wait for one to end"),
    "too_many_streams": Row(429, "Too many open streams", _U, "close one, or ask without waiting"),
    "too_many_downloads": Row(429, "Too many open downloads", _U, "wait for one to end"),
    "spool_share": Row(429, "Your share of the temporary store is taken", _U, "delete a job or wait for one to end"),
    "daily_quota": Row(429, "Today's share of audio is used up", _U, "come back tomorrow"),
    "rate_limited": Row(429, "Too many requests", _U, "wait as Retry-After says"),
    "range_not_satisfiable": Row(416, "That range is not in the file", _U, "ask for a range inside the file"),
    "precondition_failed": Row(412, "It is not as the request expects", _U, "ask again without If-Match"),
    "upload_timeout": Row(408, "The upload stalled", _U, "continue the upload"),
    "transfer_coding": Row(501, "Not a transfer coding known here", _S, "send the body as it is, or chunked"),
    "unsupported_media_type": Row(415, "Not a content type this address takes", _U, "send the type it names"),
    "tus_version": Row(412, "Another version of tus", _U, "speak the version in Tus-Version"),
    "cancelled": Row(409, "The job was cancelled", _U, "send the song again"),
    # The service.
    "spool_full": Row(507, "The temporary store is full", _S, "wait as Retry-After says"),
    "no_tier": Row(503, "No tier can take the job now", _S, "wait as Retry-After says"),
    "overloaded": Row(503, "Too much waiting already", _S, "wait as Retry-After says"),
    "attempts_exhausted": Row(502, "The job failed on every tier that was tried", _S, "send the song again"),
    "poison": Row(502, "The job broke the machines it ran on", _S, "export the song anew and send it again"),
    "deadline": Row(504, "The job took longer than allowed", _S, "send the song again"),
    "input_lost": Row(500, "The upload was lost before the render ended", _S, "send the song again"),
    "expired": Row(410, "The job's time is over", _U, "send the song again"),
    "out_of_memory": Row(502, "The render ran out of memory", _S, "send the song again"),
    "unknown_kind": Row(503, "No tier does such jobs now", _S, "wait as Retry-After says"),
    "bad_master": Row(502, "The master failed its own checks", _S, "send the song again or try another setting"),
    "busy": Row(503, "Busy", _S, "wait as Retry-After says"),
    "draining": Row(503, "This router is being shut down", _S, "send the request again"),
    "internal": Row(500, "Something broke on our side", _S, "send the song again"),
}


class Problem(Exception):
    """An error from the table, with a sentence that says what was wrong and what to do, and its numbers."""

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
        **numbers: Any,
    ) -> None:
        row = TABLE.get(code)
        if row is None:
            code, row = "internal", TABLE["internal"]
            detail, numbers = None, {}
        self.code = code
        self.row = row
        self.detail = detail or f"{row.title}: {row.retry}."
        self.retry_after_s = retry_after_s
        self.headers = headers or {}
        self.numbers = numbers
        super().__init__(self.detail)

    def body(self) -> dict[str, Any]:
        """The members of its problem+json, the numbers as extension members."""
        return {
            "type": f"/errors/{self.code}",
            "title": self.row.title,
            "status": self.row.status,
            "code": self.code,
            "detail": self.detail,
            **self.numbers,
        }
