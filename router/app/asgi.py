"""The router as an ASGI application: routes, error answers and the layers around them, over opened services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from router.app.compose import open_services
from router.core.command_error import CommandError
from router.core.event_log import learn_routes, log_exception
from router.core.settings import LOOPBACK_NAMES, RouterSettings, refuse_strangers
from router.http import access_log, head_requests, problems, rate_limit, security_headers
from router.jobs.services import Services
from router.tiers.port import Backend
from router.web import routes
from router.web.api import tus
from router.web.auth import counted_account
from router.web.stream_limits import Downloads, Streams


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def make_app(
    settings: RouterSettings,
    backends: Sequence[Backend] | None = None,
    beside: Callable[[], AbstractAsyncContextManager[None]] = _nothing,
    within: Callable[[Services], AbstractAsyncContextManager[None]] = lambda _: _nothing(),
) -> FastAPI:
    """The router as an ASGI application. `beside` runs around its services, `within` while they are open.

    `backends` stand in for those of the settings. Raises CommandError for settings that would let strangers in.
    """
    if not settings.has_sign_in:
        refuse_strangers(settings.host)
        refuse_strangers(settings.public_url)
    refuse_strangers(settings.admin_host)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opening = open_services(settings, backends)
        app.state.uploads = {}
        app.state.streams = Streams(settings.streams_per_account)
        app.state.downloads = Downloads(settings.streams_per_account)
        try:
            async with beside(), opening as app.state.services, within(app.state.services):
                yield
        except CommandError as command_error:
            app.state.command_error = command_error  # the server ends without saying why; `server` tells
            raise
        except Exception as error:
            log_exception(error)
            app.state.command_error = CommandError("the start failed on a fault of our own; the log names the place.")
            raise

    app = FastAPI(
        title="Mastering router",
        version="1",
        summary="Takes a song, hands back a master, forgets the rest.",
        openapi_url=routes.OPENAPI_URL,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy they would lead to http
        responses=problems.COMMON_RESPONSES,
        lifespan=lifespan,
    )
    problems.install(app, routes.methods_at)
    for router in routes.ROUTERS:
        app.include_router(router)
    app.add_middleware(tus.TusAnswers)
    app.add_middleware(head_requests.HeadRequests, own=head_requests.paths_with_head(*routes.ROUTERS))
    app.add_middleware(rate_limit.RateLimiter, settings=settings, account_of=counted_account)
    app.add_middleware(security_headers.RequestGuard, site=site_of(settings))
    learn_routes(routes.templates())
    app.add_middleware(access_log.AccessLog)
    return app


def site_of(settings: RouterSettings) -> security_headers.Site:
    """Where people find this router."""
    origin = settings.origin if settings.public_url else None
    return security_headers.Site(LOOPBACK_NAMES | {settings.host}, origin, framed=settings.profile == "space")
