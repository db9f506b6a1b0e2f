"""The events that the router may log, and the pseudonyms that accounts have in the log.

No event has a place for an address, a name, a path, an identifier of a job or a sentence from outside
(`mastering.runtime.event_log` holds that). The words below are those of our own tables; a test keeps the two alike.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mastering.contract.kinds import LogField, job_kinds
from mastering.runtime.event_log import (
    CODE_NAME,
    CODE_PLACE,
    DayFiles,
    EventLog,
    Events,
    FieldType,
    Flag,
    Form,
    Real,
    Several,
    Whole,
    Words,
    capture_process_output,
    to_stream,
)
from mastering.runtime.sandbox_check import ATTEMPTS
from router.core.errors import TABLE

DAYS_KEPT = 7
_DAY_S = 86_400
ROUTES = Words("none", text="template of one of our addresses")
"""Filled by `app` with the addresses that it serves; a request to any other is of the route `none`."""
TIERS = Words("managed", "gpu_space", "cpu_space")
CONTAINERS = Words(
    "wav", "aiff", "w64", "au", "flac", "ogg", "mp4", "webm", "mp3", "mp2", "aac", "ac3", "eac3", "wavpack", "asf",
    "caf",
)  # fmt: skip
CODECS = Words(
    "pcm_8", "pcm_16", "pcm_24", "pcm_32", "float_32", "float_64", "mu_law", "a_law", "adpcm", "aac", "alac", "flac",
    "mp3", "mp2", "opus", "vorbis", "wma", "wma_lossless", "ac3", "eac3", "wavpack", "wavpack_hybrid",
)  # fmt: skip
FAULTS = Words(
    "user", "too_big", "unsupported", "capacity", "quota", "unreachable", "crash", "bug", "configuration", "asleep",
    "bad_output", "deadline", "ours", "room",
)  # fmt: skip
STATES = Words(
    "unknown", "warming", "healthy", "suspect", "open", "half-open", "sleeping", "paused", "quota-out", "draining",
    "maintenance", "incompatible",
)  # fmt: skip
OUTCOMES = Words(
    "mastered", "expired", "cancelled", *TABLE, text="mastered, expired, cancelled or a code of our errors"
)
SIGN_INS = Words(
    "signed_in", "declined", "no_attempt", "said_twice", "used_before", "wrong_state", "answer_of_another_issuer",
    "provider_error", "no_code", "code_refused", "no_tokens", "no_id_token", "malformed", "too_long", "unreadable",
    "wrong_algorithm", "unknown_key", "weak_key", "bad_signature", "bad_iss", "bad_sub", "bad_aud", "bad_azp",
    "bad_exp", "bad_iat", "bad_nbf", "bad_nonce", "bad_at_hash", "discovery_of_another_issuer",
    "discovery_without_endpoints", "provider_broken", "provider_silent",
    text="signed_in, or which check of the sign-in failed",
)  # fmt: skip
_BACKEND = Form(r"[a-z0-9][a-z0-9-]{0,31}", "name of a backend in the catalogue")
_SIZE = Form(r"<=\d{1,9}MiB", "power of two in MiB")
_PSEUDONYM = Form(r"[0-9a-f]{16}", "pseudonym that changes every day")
_METHODS = Words("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")


def _field_type(field: LogField) -> FieldType:
    if isinstance(field.of, tuple):
        return Words(*field.of, text=field.text)
    types: dict[type, FieldType] = {float: Real(), int: Whole(), bool: Flag()}
    return types[field.of]


EVENTS: Events = {
    "started": {"tiers": Whole(), "resumed": Whole(), "wiped": Whole()},
    "sandbox_incomplete": {"gaps": Several(Words(*ATTEMPTS))},
    "stopped": {},
    "http": {"route": ROUTES, "method": _METHODS, "status": Whole(100, 599), "ms": Whole(), "size": _SIZE},
    "render": {
        "account": _PSEUDONYM,
        "kind": Words(*job_kinds()),
        "container": CONTAINERS,
        "codec": CODECS,
        "duration_s": Whole(),
        "rate_hz": Whole(),
        "channels": Whole(),
        "size": _SIZE,
        "outputs": Several(Words(*(name for kind in job_kinds().values() for name in kind.outputs))),
        **{name: _field_type(field) for kind in job_kinds().values() for name, field in kind.log_fields.items()},
        "references": Whole(),
        "managed_only": Flag(),
        "tier": TIERS,
        "attempts": Whole(),
        "queue_s": Real(),
        "render_s": Real(),
        "outcome": OUTCOMES,
    },
    "attempt_failed": {"tier": TIERS, "backend": _BACKEND, "fault": FAULTS},
    "backend": {"tier": TIERS, "backend": _BACKEND, "up": Flag(), "state": STATES},
    "catalogue": {"ok": Flag(), "backends": Whole()},
    "wiped": {"reason": Words("expired"), "count": Whole()},
    "sign_in": {"outcome": SIGN_INS},
    "logs_removed": {"count": Whole()},
    "own_worker": {
        "said": Words("listening", "sandbox_incomplete", "stopping", "stopped", "render_ended", "broken", "ended"),
        "gaps": Several(Words(*ATTEMPTS)),
        "type": CODE_NAME,
        "at": CODE_PLACE,
        "status": Whole(-64, 255),
    },
}
"""Event → its fields and what each may hold. A field that does not apply is left out."""

book = EventLog(EVENTS, to_stream(lambda: sys.stderr))


def log(event: str, /, **fields: object) -> None:
    """Write one event of the list. Anything else is dropped and counted."""
    book.log(event, **fields)


def log_exception(error: BaseException) -> None:
    """An exception as its type and the place in the code, never its text."""
    book.broken(error)


def configure(folder: Path | None = None) -> Callable[[], int]:
    """Make the log the only way out of this process: to standard error, or to a file a day in `folder`.

    Returns what removes files whose time is over, to be called at least every hour; those of now are gone already.
    """
    capture_process_output(book)
    if folder is None:
        book.write = to_stream(lambda: sys.stderr)
        return lambda: 0
    files = DayFiles(folder, "router", DAYS_KEPT)
    files.sweep()
    book.write = files
    return files.sweep


class LogPseudonyms:
    """Pseudonyms of accounts for the log: the same all day, others the next day and after every start.

    The key lies in RAM alone and the last one is thrown away, so that old lines can be joined neither to an account
    nor to each other, by us or by anybody.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._day = -1
        self._key = b""

    def of(self, account: str) -> str:
        """The account's pseudonym of today: 16 hexadecimal digits."""
        today = int(self._clock() // _DAY_S)
        if today != self._day:
            self._day, self._key = today, secrets.token_bytes(32)
        return hmac.digest(self._key, account.encode(), hashlib.sha256)[:8].hex()

    def forget(self) -> None:
        """Give every account another pseudonym, so that today's lines of an erased account can't be joined to it."""
        self._day = -1


pseudonyms = LogPseudonyms()


def pseudonym(account: str) -> str:
    """The account's pseudonym of today."""
    return pseudonyms.of(account)


def forget_pseudonyms() -> None:
    """When an account is erased: today's lines can't be joined to it any more."""
    pseudonyms.forget()


def learn_routes(templates: Iterable[str]) -> None:
    """Allow these address templates in the log; a request to any other address is of the route `none`."""
    ROUTES.words |= set(templates)


def size_bucket(size_bytes: int) -> str:
    """A rough size: the next power of two in MiB."""
    mib = 1
    while mib * 1024 * 1024 < size_bytes:
        mib *= 2
    return f"<={mib}MiB"
