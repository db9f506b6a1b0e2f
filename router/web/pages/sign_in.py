"""Sign-in and sign-out in the browser: the redirect to the OpenID provider, its callback, the end of a session.

Nothing is stored until the provider has named the person. Errors are HTML pages: a person reads them, no program.

A person may sign in in several tabs at once, and go back to a tab that is done. So an answer that fails ends the
attempt that it belongs to and no other, and shows whoever is signed in the page, not the failure.
"""

from __future__ import annotations

import hmac

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from router.core.errors import TABLE, Problem
from router.core.event_log import log
from router.http.problems import responses
from router.http.rate_limit import SIGN_IN_REFUSED
from router.identity import login
from router.identity.http_fetch import ProviderUnavailable, SignInRefused
from router.identity.login import LoginAttempt
from router.identity.sign_in import SignIn
from router.jobs import account_data
from router.jobs.services import Services
from router.web import cookies
from router.web.dependencies import TheOwner, TheServices
from router.web.pages.html_templates import rendered

router = APIRouter(include_in_schema=False)
_NO_STORE = {"cache-control": "no-store"}
_FRAMES = frozenset({"frame", "iframe", "embed", "object"})


@router.get("/sign-in")
async def begin_sign_in(request: Request, services: TheServices, then: str = "") -> Response:
    """Send the browser to the provider, with a cookie that binds the answer to it."""
    sign_in = _configured(services)
    if request.headers.get("sec-fetch-dest") in _FRAMES:
        # The provider's page may not be shown in a frame, and a cookie set there would not be sent from a tab.
        return Response(rendered("sign_in_framed.html").plain, headers=_NO_STORE, media_type="text/html")
    if not sign_in.is_https and request.headers.get("host") != sign_in.origin.partition("://")[2]:
        # This machine has several names; the provider sends people back to one, where the cookie must be.
        then = then if then in login.THEN else ""
        return RedirectResponse(f"{sign_in.origin}/sign-in?then={then}", 303, _NO_STORE)
    before = cookies.read_cookie(request, services, cookies.LOGIN)
    attempt, cookie = login.begin_attempt(services.secret, services.clock.now(), then, before)
    try:
        url = await sign_in.provider.authorization_url(attempt)
    except (SignInRefused, ProviderUnavailable) as error:
        log("sign_in", outcome=error.reason)
        return _failure_page(error)
    response = RedirectResponse(url, 303, _NO_STORE)
    cookies.set_cookie(response, services, cookies.LOGIN, cookie)
    return response


@router.get("/sign-in/callback")
async def finish_sign_in(request: Request, services: TheServices) -> Response:
    """The browser is back from the provider: begin a session, or show a page that says to try again."""
    sign_in = _configured(services)
    before = cookies.read_cookie(request, services, cookies.SESSION)
    attempt: LoginAttempt | None = None
    try:
        attempt = _attempt_of(request, services)
        names = await _pseudonyms(request, sign_in, attempt)
    except (SignInRefused, ProviderUnavailable) as error:
        log("sign_in", outcome=error.reason)
        is_signed_in = before is not None and await sign_in.sessions.find(before) is not None
        then = attempt.then if attempt else ""
        response = RedirectResponse(f"/{then}", 303, _NO_STORE) if is_signed_in else _failure_page(error)
    else:
        for older in names[1:]:
            await account_data.move_account(services, older, names[0])
        secret = await sign_in.sessions.begin(names[0], replaces=before)
        response = RedirectResponse(f"/{attempt.then}", 303, _NO_STORE)
        cookies.set_cookie(response, services, cookies.SESSION, secret)
        log("sign_in", outcome="signed_in")
    if attempt is not None:
        _end_attempt(request, response, services, attempt)
    return response


def _attempt_of(request: Request, services: Services) -> LoginAttempt:
    """The attempt of this browser that the provider answers. Raises SignInRefused."""
    cookie = cookies.read_cookie(request, services, cookies.LOGIN)
    under_way = login.attempts_of(services.secret, services.clock.now(), cookie)
    if not under_way:
        raise SignInRefused("no_attempt")
    if any(len(request.query_params.getlist(name)) > 1 for name in request.query_params):
        raise SignInRefused("said_twice")
    state = request.query_params.get("state", "").encode()
    for attempt in under_way:
        if hmac.compare_digest(attempt.state.encode(), state):
            return attempt
    raise SignInRefused("wrong_state")  # not counted: anybody could close the sign-in for a network by it


async def _pseudonyms(request: Request, sign_in: SignIn, attempt: LoginAttempt) -> list[str]:
    """The pseudonyms of the person whom the provider names, newest first. Raises SignInRefused, ProviderUnavailable."""
    if not await sign_in.sessions.use_state(attempt.state, login.LIFETIME_S):
        raise SignInRefused("used_before")
    try:
        return await sign_in.provider.identify(attempt, dict(request.query_params), sign_in.peppers.pseudonyms)
    except SignInRefused:
        request.scope[SIGN_IN_REFUSED] = True
        raise


def _end_attempt(request: Request, response: Response, services: Services, attempt: LoginAttempt) -> None:
    """Take the attempt out of the login cookie, and leave those of other tabs in it."""
    cookie = cookies.read_cookie(request, services, cookies.LOGIN)
    left = login.without_attempt(services.secret, services.clock.now(), cookie, attempt)
    if left:
        cookies.set_cookie(response, services, cookies.LOGIN, left)
    else:
        cookies.delete_cookie(response, services, cookies.LOGIN)


@router.post("/sign-out", status_code=204, response_class=Response, responses=responses("sign_in"))
async def sign_out(services: TheServices, owner: TheOwner) -> Response:
    """End this session and clear what the browser stored for this site.

    Asked for by a script: a form on a page without referrer says `Origin: null`, as a foreign one would.
    """
    sign_in = _configured(services)
    await sign_in.sessions.end(owner.id, owner.session)
    response = Response(status_code=204, headers={"clear-site-data": '"storage"', **_NO_STORE})
    cookies.delete_cookie(response, services, cookies.SESSION)
    return response


def _configured(services: Services) -> SignIn:
    """The router's sign-in. Raises Problem(not_found) where it has none."""
    if services.sign_in is None:
        raise Problem("not_found", "This router has no sign-in: whoever reaches it may use it.")
    return services.sign_in


def _failure_page(error: SignInRefused | ProviderUnavailable) -> Response:
    """The error page. Which check failed is logged and not shown: it would help an attacker to guess."""
    code = "sign_in_failed" if isinstance(error, SignInRefused) else "sign_in_unavailable"
    declined = error.reason == "declined"
    page = rendered("sign_in_failed.html", code=code, row=TABLE[code], declined=declined)
    return Response(page.plain, TABLE[code].status, _NO_STORE, media_type=page.media_type)
