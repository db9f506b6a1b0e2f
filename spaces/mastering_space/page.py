"""The page for people: one document and its static files, made once and served from memory.

The player, the plots and the texts are the router's: in a Space's folder they lie beside ours (`upload`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mastering.contract import ENGINE_VERSION, Effort, OutputFormat
from mastering.contract.presets import Target, presets
from mastering_space.problems import refused
from mastering_space.settings import MIB, SpaceKind, SpaceSettings
from mastering_space.upload import example, page_files, template_folders

_TITLES = {"cpu": "CPU Space", "zero_gpu": "ZeroGPU Space"}
_FIT_TEXTS = {
    "cpu": "Refined by gradient descent, here on the processor: minutes.",
    "zero_gpu": "Refined by gradient descent on a GPU; uses some seconds of your ZeroGPU quota.",
}
_QUOTA_TEXTS = {
    "cpu": "This Space has no GPU: nothing you do here spends a quota.",
    "zero_gpu": "A quick master spends no quota. A fitted one spends some seconds of the daily ZeroGPU quota: yours if "
    "you are signed in to Hugging Face, else your address’s.",
}
_OFFERED = (OutputFormat.WAV24, OutputFormat.WAV16, OutputFormat.FLAC, OutputFormat.MP3)
"""What a browser can play, so that the comparison works with each."""
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_page(kind: SpaceKind, settings: SpaceSettings, paces: Collection[str]) -> Starlette:
    """The application of the page and its files; `paces` of a master are offered, since they can be done here."""
    page = _html(kind, settings, paces).encode()
    static = {name: path.read_bytes() for name, path in page_files().items()}

    async def index(request: Request) -> Response:
        return _cacheable(request, page, "text/html")

    async def file(request: Request) -> Response:
        name = request.path_params["path"]
        if name not in static:
            return refused(404, "There is no such file on this page.")
        return _cacheable(request, static[name], _MEDIA_TYPES[Path(name).suffix])

    methods = ["GET", "HEAD"]
    return Starlette(routes=[Route("/", index, methods=methods), Route("/static/{path:path}", file, methods=methods)])


def _cacheable(request: Request, content: bytes, media_type: str) -> Response:
    """The content under an ETag; 304 for whoever has it already."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _html(kind: SpaceKind, settings: SpaceSettings, paces: Collection[str]) -> str:
    environment = Environment(
        loader=FileSystemLoader(template_folders()),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown, others = _by_loudness(presets().targets)
    return environment.get_template("page.html").render(
        title=_TITLES[kind],
        offers_fit=Effort.FIT in paces,
        fit_text=_FIT_TEXTS[kind],
        quota_text=_QUOTA_TEXTS[kind],
        wants_key=settings.key is not None,
        limit_mib=settings.max_bytes // MIB,
        limit_min=int(settings.max_duration_s // 60),
        shown=shown,
        others=others,
        styles=presets().styles,
        outputs=_OFFERED,
        example=example(),
        engine_version=ENGINE_VERSION,
    )


def _by_loudness(targets: dict[str, Target]) -> tuple[dict[str, Target], dict[str, Target]]:
    """The first target of each loudness, and the rest."""
    shown: dict[str, Target] = {}
    for name, target in targets.items():
        if target.loudness_lufs not in {one.loudness_lufs for one in shown.values()}:
            shown[name] = target
    return shown, {name: target for name, target in targets.items() if name not in shown}
