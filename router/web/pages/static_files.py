"""The page's static files, read once and served from memory under an address that changes with each release.

The address holds the digest of them all (`/static/<digest>/js/main.js`): a browser may keep them for ever, ES modules
find each other by relative imports, and a new release is a new address. A page itself is revalidated at every visit by
its ETag.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from router.core.errors import Problem
from router.http.negotiation import combined, takes_gzip

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMMUTABLE = "public, max-age=31536000, immutable"
"""Cache-Control of a file under its release's address, where its content never changes: kept for a year."""
REVALIDATE = "no-cache"
"""Cache-Control of what may be stored but must be asked for by its ETag each time."""


@dataclass(frozen=True)
class StaticFile:
    """One file in RAM, as it is and gzipped, with the digest for its ETags."""

    media_type: str
    plain: bytes
    packed: bytes
    etag: str

    @classmethod
    def of(cls, media_type: str, content: bytes) -> StaticFile:
        digest = hashlib.sha256(content).hexdigest()[:24]
        return cls(media_type, content, gzip.compress(content, mtime=0), digest)


@cache
def static_files() -> dict[str, StaticFile]:
    """Every file under `static/` by its path there. A file of an unknown kind is a mistake and raises KeyError."""
    found: dict[str, StaticFile] = {}
    folders: list[tuple[str, Traversable]] = [("", files("router.web").joinpath("static"))]
    while folders:
        prefix, folder = folders.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            else:
                suffix = entry.name[entry.name.rindex(".") :]
                found[prefix + entry.name] = StaticFile.of(_MEDIA_TYPES[suffix], entry.read_bytes())
    return found


@cache
def static_digest() -> str:
    """Digest of all static files together: the part of their address that changes with a release."""
    parts = sorted((path, file.etag) for path, file in static_files().items())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@router.get("/static/{digest}/{path:path}")
async def static(request: Request, digest: str, path: str) -> Response:
    """The file; one asked for under another release's digest is sent too, but not for keeping."""
    file = static_files().get(path)
    if file is None:
        raise Problem("not_found", "There is no such file on this page.")
    return file_response(request, file, _IMMUTABLE if digest == static_digest() else REVALIDATE)


def file_response(request: Request, file: StaticFile, cache_control: str) -> Response:
    """The file gzipped where the browser takes that, or 304 where its ETag is the one that the browser has."""
    packs = takes_gzip(request.headers)
    etag = f'"{file.etag}-gzip"' if packs else f'"{file.etag}"'
    headers = {"ETag": etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding"}
    known = [tag.strip().removeprefix("W/") for tag in combined(request.headers, "if-none-match").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packs else file.plain, media_type=file.media_type, headers=headers)
