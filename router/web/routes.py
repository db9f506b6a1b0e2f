"""The list of every route module of the public port, and the path templates that they serve."""

from __future__ import annotations

from router.http.access_log import templates_of
from router.web.api import account, credentials, jobs, outputs, references, tus, uploads
from router.web.pages import api_docs, pages, privacy_policy, sign_in, static_files

OPENAPI_URL = "/openapi.json"
ROUTERS = tuple(
    module.router
    for module in (
        jobs, uploads, references, tus, outputs, account, credentials, sign_in, pages, static_files, privacy_policy,
        api_docs,
    )
)  # fmt: skip


def templates() -> tuple[str, ...]:
    """The template of every path that is served: the only form in which the log may name one."""
    return (OPENAPI_URL, *templates_of(*ROUTERS))
