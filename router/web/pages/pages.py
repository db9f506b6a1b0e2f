"""The web page and its static files, read once at start and served from memory.

Static files live under an address that holds the digest of them all (`/static/<digest>/js/main.js`): the browser may
keep them for ever, ES modules find each other by relative imports, and a new release is a new address. The page
itself is revalidated at every visit by its ETag. Nothing here looks at who is asking.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mastering.contract import ENGINE_VERSION
from router.core.errors import Problem

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"


@dataclass(frozen=True)
class StaticFile:
    """One file in RAM, as it is and gzipped, with a strong ETag for each."""

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


_ACCOUNT = "js/account.js"
_SHARED = ("js/api.js", "js/dom.js", "js/framed.js", "js/words.js")


@cache
def _page(template: str) -> StaticFile:
    scripts = sorted(path for path in static_files() if path.startswith("js/") and path != _ACCOUNT)
    return rendered(template, modules=[_ACCOUNT, *_SHARED] if template == "account.html" else scripts)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("router.web"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rendered(template: str, **values: object) -> StaticFile:
    """A page of ours from its template, ready to be sent."""
    text = (
        _environment()
        .get_template(template)
        .render(static=f"/static/{static_digest()}", engine_version=ENGINE_VERSION, **values)
    )
    return StaticFile.of("text/html; charset=utf-8", text.encode())


@router.api_route("/", methods=["GET", "HEAD"])
def index(request: Request) -> Response:
    return answer(request, _page("index.html"), ASK_FIRST)


@router.api_route("/account", methods=["GET", "HEAD"])
def account(request: Request) -> Response:
    """The same page for everybody: what it shows of an account it asks for by the API."""
    return answer(request, _page("account.html"), ASK_FIRST)


@router.api_route("/static/{digest}/{path:path}", methods=["GET", "HEAD"])
def static(request: Request, digest: str, path: str) -> Response:
    """The file; one asked for under another release's digest is sent too, but not for keeping."""
    file = static_files().get(path)
    if file is None:
        raise Problem("not_found", "There is no such file on this page.")
    return answer(request, file, _FOR_EVER if digest == static_digest() else ASK_FIRST)


def answer(request: Request, file: StaticFile, cache_control: str) -> Response:
    packs = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{file.etag}-gzip"' if packs else f'"{file.etag}"'
    headers = {"ETag": etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packs else file.plain, media_type=file.media_type, headers=headers)
