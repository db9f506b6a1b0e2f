"""Every route module of the public port, with the path templates that they serve and the methods of each."""

from __future__ import annotations

from starlette.routing import Route

from router.http.access_log import templates_of
from router.web.api import account, credentials, health, jobs, outputs, references, tus, uploads
from router.web.pages import api_docs, pages, privacy_policy, sign_in, static_files

OPENAPI_URL = "/openapi.json"
ROUTERS = tuple(
    module.router
    for module in (
        jobs, uploads, references, tus, outputs, health, account, credentials, sign_in, pages, static_files,
        privacy_policy, api_docs,
    )
)  # fmt: skip


def templates() -> tuple[str, ...]:
    """The template of every path that is served: the only form in which the log may name one."""
    return (OPENAPI_URL, *templates_of(*ROUTERS))


def methods_at(path: str) -> set[str]:
    """The methods that a path is served by; HEAD wherever GET is (`http.head_requests`)."""
    routes = (route for router in ROUTERS for route in router.routes if isinstance(route, Route))
    methods = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return methods | {"HEAD"} if "GET" in methods else methods
