"""The operators' ASGI application: status page, its API, health checks for load balancers, Prometheus metrics."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from fastapi import FastAPI, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pydantic import BaseModel, ConfigDict

from mastering.contract import ENGINE_VERSION
from router.admin.gauges import Gauges
from router.admin.status import Status, TierStatus, current_status
from router.core import metrics
from router.core.errors import Problem
from router.core.settings import LOOPBACK_NAMES
from router.http import head_requests, problems, security_headers
from router.jobs.services import Services
from router.tiers.fleet.modes import Mode

_STATIC = {"dashboard.js": "text/javascript; charset=utf-8", "dashboard.css": "text/css; charset=utf-8"}
_REVALIDATE = {"cache-control": "no-cache"}
_NO_STORE = {"cache-control": "no-store"}


class ModeChange(BaseModel):
    """The mode that an operator sets for a backend."""

    model_config = ConfigDict(extra="forbid")
    mode: Literal["ready", "draining", "maintenance"]


def make_admin(services: Services) -> FastAPI:
    """The application of the operators' port, over the services of a running router."""
    app = FastAPI(title="Mastering router, operators' port", version="1", docs_url=None, redoc_url=None)
    problems.install(app)
    _install_pages(app)
    _install_health(app, services)
    _install_api(app, services)
    app.add_middleware(head_requests.HeadRequests)
    app.add_middleware(
        security_headers.RequestGuard, site=security_headers.Site(LOOPBACK_NAMES | {services.settings.admin_host})
    )
    return app


def _install_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(_dashboard(), media_type="text/html; charset=utf-8", headers=_REVALIDATE)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in _STATIC:
            raise Problem("not_found")
        return Response(_static_file(name), media_type=_STATIC[name], headers=_REVALIDATE)


def _install_health(app: FastAPI, services: Services) -> None:
    gauges = Gauges(services)
    services.fleet.metrics.watch(gauges)

    @app.get("/livez")
    async def live() -> Response:
        """200 while the process answers."""
        return Response("alive\n", media_type="text/plain", headers=_NO_STORE)

    @app.get("/readyz")
    async def ready() -> Response:
        """200 while the spool has space for songs. Tiers that are down do not make a router unready."""
        usage = services.spool.usage()
        has_room = usage.quota_bytes - usage.reserved_bytes > 0
        text = "ready\n" if has_room else "the spool is full\n"
        return Response(text, 200 if has_room else 503, media_type="text/plain", headers=_NO_STORE)

    @app.get("/metrics")
    async def scrape() -> Response:
        gauges.note_queue(await services.queue.depth())
        return Response(services.fleet.metrics.page(), media_type=metrics.CONTENT_TYPE, headers=_NO_STORE)


def _install_api(app: FastAPI, services: Services) -> None:
    @app.get("/v1/status")
    async def everything() -> Status:
        """Everything the page shows."""
        return await current_status(services)

    @app.get("/v1/tiers")
    async def tiers() -> list[TierStatus]:
        return (await current_status(services)).tiers

    @app.put("/v1/backends/{name}/mode", responses=problems.responses("not_found"))
    async def tell(name: str, change: ModeChange) -> Status:
        """Drain a backend, take it out for maintenance, or have it back. Kept over restarts."""
        try:
            await services.fleet.set_mode(name, Mode(change.mode))
        except KeyError:
            raise Problem("not_found", "There is no backend of that name.") from None
        return await current_status(services)


@cache
def _static_file(name: str) -> bytes:
    return files("router.admin").joinpath("static", name).read_bytes()


@cache
def _dashboard() -> str:
    environment = Environment(
        loader=PackageLoader("router.admin"), autoescape=select_autoescape(), undefined=StrictUndefined
    )
    return environment.get_template("dashboard.html").render(engine_version=ENGINE_VERSION)
