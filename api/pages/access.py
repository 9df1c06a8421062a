"""How a browser, which sends no header of its own, is let in: a token in a cookie.

The cookie is for pages alone. The JSON API goes by the header, so no other site can make a browser
write anything; and a cookie is as good as its token, no longer: who takes the token away ends it.
"""

import base64
import binascii
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.edge import Edge, edge_of
from api.pages.rendering import render
from api.problems import ApiError
from api.requests import read_body
from riskhub.auth import Scope

COOKIE = "riskhub_token"
MAX_COOKIE_TOKEN_BYTES = 2048  # a browser keeps cookies of 4 KiB
_KEPT_SEC = 7 * 86_400
_MAX_FORM_BYTES = 16_384
# The pages there are: nobody is sent anywhere else after the login.
_OURS = re.compile(r"/(worlds/[A-Za-z0-9._:-]{1,128}(\?stage=[A-Za-z0-9._~%+-]{1,400})?)?")

router = APIRouter(include_in_schema=False)


def is_guarded(edge: Edge) -> bool:
    """Whether pages need a token."""
    return edge.settings.read_auth and not edge.tokens.is_open


def may_read(request: Request, edge: Edge) -> bool:
    """Whether who asks may see pages: by cookie or, as everywhere, by header."""
    if not is_guarded(edge):
        return True
    scheme, _, offered = request.headers.get("authorization", "").partition(" ")
    token = offered if scheme.lower() == "bearer" else _token_of(request.cookies.get(COOKIE))
    return token is not None and _why_not(edge, token) is None


def to_login(request: Request) -> Response:
    """Sends who is not let in to the login, and from there back."""
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    there = request.url_for("get_login").include_query_params(next=_ours(path))
    return RedirectResponse(
        f"{there.path}?{there.query}", HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"}
    )


@router.get("/login")
async def get_login(request: Request) -> Response:
    """The form that takes a token."""
    edge = edge_of(request)
    there = _ours(request.query_params.get("next", "/"))
    if may_read(request, edge):
        return RedirectResponse(there, HTTPStatus.SEE_OTHER)
    return render(request, "login.html", there=there, problem=None)


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Keep a token that may read in a cookie."""
    edge = edge_of(request)
    _refuse_other_sites(request)
    body = await read_body(request, _MAX_FORM_BYTES, edge.settings.body_timeout_sec)
    form = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
    token = form.get("token", [""])[0].strip().encode()
    there = _ours(form.get("next", ["/"])[0])
    if len(token) > MAX_COOKIE_TOKEN_BYTES:
        why: str | None = "This token is too long for a browser to keep."
    else:
        why = _why_not(edge, token)
    if why is not None:
        return render(request, "login.html", HTTPStatus.UNAUTHORIZED, there=there, problem=why)
    response = RedirectResponse(there, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})
    value = base64.urlsafe_b64encode(token).decode()
    response.set_cookie(COOKIE, value, max_age=_KEPT_SEC, **_flags(request))
    return response


@router.post("/logout")
async def post_logout(request: Request) -> Response:
    """Forget the cookie."""
    _refuse_other_sites(request)
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})
    response.delete_cookie(COOKIE, **_flags(request))
    return response


def _why_not(edge: Edge, token: str | bytes) -> str | None:
    """Why a token does not open the pages; None when it does."""
    grant = edge.tokens.grant_of(token)
    if grant is None:
        edge.hub.telemetry.auth_failed("token")
        return "This is no token of this hub."
    if not grant.allows(Scope.READ):
        edge.hub.telemetry.auth_failed("scope")
        return "This token does not allow to read."
    return None


def _token_of(cookie: str | None) -> bytes | None:
    try:
        return base64.b64decode(cookie, b"-_", validate=True) if cookie else None
    except (binascii.Error, ValueError):
        return None


def _flags(request: Request) -> dict[str, Any]:
    # Behind a proxy that ends TLS only its header tells. One that lies makes its own cookie Secure.
    forwarded = request.headers.get("x-forwarded-proto", "")
    secure = "https" in (request.url.scheme, forwarded)
    return {"path": "/", "httponly": True, "samesite": "strict", "secure": secure}


def _refuse_other_sites(request: Request) -> None:
    """No other site may log a browser in or out. Who is no browser says nothing of either."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        same = site in ("same-origin", "none")
    else:  # an older browser, or one that came without TLS
        origin = request.headers.get("origin")
        same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not same:
        raise ApiError(HTTPStatus.FORBIDDEN, "only the hub's own form may do this")


def _ours(path: str) -> str:
    return path if _OURS.fullmatch(path) else "/"
