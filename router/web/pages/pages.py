"""The mastering page and the account page: the same for everybody, since what they show of an account is the API's."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request, Response

from router.web.pages.html_templates import rendered
from router.web.pages.static_files import REVALIDATE, StaticFile, file_response, static_files

router = APIRouter(include_in_schema=False)

_ACCOUNT = "js/account.js"
_SHARED = ("js/api.js", "js/dom.js", "js/framed.js", "js/words.js")


@router.get("/")
async def index(request: Request) -> Response:
    return file_response(request, _page_with_scripts("index.html"), REVALIDATE)


@router.get("/account")
async def account(request: Request) -> Response:
    return file_response(request, _page_with_scripts("account.html"), REVALIDATE)


@cache
def _page_with_scripts(template: str) -> StaticFile:
    """The page, which names its ES modules beforehand so that the browser loads them at once."""
    scripts = sorted(path for path in static_files() if path.startswith("js/") and path != _ACCOUNT)
    return rendered(template, modules=[_ACCOUNT, *_SHARED] if template == "account.html" else scripts)
