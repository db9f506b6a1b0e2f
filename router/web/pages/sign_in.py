"""Signing in and out, as a browser walks it: to the provider, back with a code, in with a session.

Nothing is stored until the provider has vouched for somebody. Errors here are pages: a person is on the way.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from router.core import clock
from router.core.errors import TABLE, Problem
from router.core.event_log import log
from router.http.problems import responses
from router.identity import login as attempts
from router.identity.http_fetch import ProviderUnavailable, SignInRefused
from router.identity.sign_in import SignIn
from router.jobs import account_data
from router.jobs.services import Services
from router.web import cookies
from router.web.dependencies import TheOwner, TheServices
from router.web.pages.html_templates import rendered

router = APIRouter(include_in_schema=False)
_STAY_OUT = {"cache-control": "no-store"}
_FRAMES = frozenset({"frame", "iframe", "embed", "object"})


@router.get("/sign-in")
async def begin(request: Request, services: TheServices, then: str = "") -> Response:
    """Send the browser to the provider, with a cookie that binds the answer to it."""
    door = _door(services)
    if request.headers.get("sec-fetch-dest") in _FRAMES:
        # The provider's page may not be shown in a frame, and a cookie set there would not be one of a tab's.
        return Response(rendered("sign_in_framed.html").plain, headers=_STAY_OUT, media_type="text/html")
    if not door.is_https and request.headers.get("host") != door.origin.partition("://")[2]:
        # This machine has several names; the provider sends people back to one, where the cookie must be.
        then = then if then in attempts.THEN else ""
        return RedirectResponse(f"{door.origin}/sign-in?then={then}", 303, _STAY_OUT)
    attempt, cookie = attempts.begin(services.secret, clock.now(), then)
    try:
        url = await door.provider.authorization_url(attempt)
    except (SignInRefused, ProviderUnavailable) as error:
        return _failed(services, error)
    response = RedirectResponse(url, 303, _STAY_OUT)
    cookies.put(response, services, cookies.LOGIN, cookie)
    return response


@router.get("/sign-in/callback")
async def finish(request: Request, services: TheServices) -> Response:
    """Back from the provider: a new session, or a page that says to try again."""
    door = _door(services)
    try:
        names = await _vouched(request, services, door)
    except (SignInRefused, ProviderUnavailable) as error:
        return _failed(services, error)
    for older in names[1:]:
        await account_data.move_account(services, older, names[0])
    secret = door.sessions.begin(names[0], replaces=cookies.read(request, services, cookies.SESSION))
    then = (cookies.read(request, services, cookies.LOGIN) or "").rpartition(".")[2]
    response = RedirectResponse(f"/{then if then in attempts.THEN else ''}", 303, _STAY_OUT)
    cookies.put(response, services, cookies.SESSION, secret)
    cookies.drop(response, services, cookies.LOGIN)
    log("sign_in", outcome="signed_in")
    return response


async def _vouched(request: Request, services: Services, door: SignIn) -> list[str]:
    """The pseudonyms of the person whom the provider names, newest first. Raises Refused, Unavailable."""
    cookie = cookies.read(request, services, cookies.LOGIN)
    attempt = attempts.resume(services.secret, clock.now(), cookie) if cookie else None
    if attempt is None:
        raise SignInRefused("no_attempt")
    if any(len(request.query_params.getlist(name)) > 1 for name in request.query_params):
        raise SignInRefused("said_twice")
    answer = dict(request.query_params)
    if answer.get("state") == attempt.state and not door.sessions.spend(attempt.state, attempts.LIFETIME_S):
        raise SignInRefused("used_before")
    return await door.provider.identify(attempt, answer, door.peppers.pseudonyms)


@router.post("/sign-out", status_code=204, response_class=Response, responses=responses("sign_in"))
async def leave(services: TheServices, owner: TheOwner) -> Response:
    """End this session. What the browser kept for this page goes with it. Asked for by a script: a form of a page
    without referrer says `Origin: null`, as a stranger's would."""
    door = _door(services)
    door.sessions.end(owner.id, owner.session)
    response = Response(status_code=204, headers={"clear-site-data": '"storage"', **_STAY_OUT})
    cookies.drop(response, services, cookies.SESSION)
    return response


def _door(services: Services) -> SignIn:
    if services.sign_in is None:
        raise Problem("not_found", "This router has no sign-in: whoever reaches it may use it.")
    return services.sign_in


def _failed(services: Services, error: SignInRefused | ProviderUnavailable) -> Response:
    """The page for people; which check failed is told to the log alone, where it helps nobody to guess."""
    log("sign_in", outcome=error.reason)
    code = "sign_in_failed" if isinstance(error, SignInRefused) else "sign_in_unavailable"
    declined = error.reason == "declined"
    page = rendered("sign_in_failed.html", code=code, row=TABLE[code], declined=declined)
    response = Response(page.plain, TABLE[code].status, _STAY_OUT, media_type=page.media_type)
    cookies.drop(response, services, cookies.LOGIN)
    return response
