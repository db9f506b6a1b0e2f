"""The page for people."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mastering_space.settings import Kind, SpaceSettings


def create_page(kind: Kind, settings: SpaceSettings) -> Starlette:
    async def index(_: Request) -> Response:
        return PlainTextResponse(kind)

    return Starlette(routes=[Route("/", index, methods=["GET", "HEAD"])])
