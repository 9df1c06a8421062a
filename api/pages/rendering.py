"""From facts to a page: templates, how values are written, and what the browser is held to."""

import asyncio
import gzip
from collections.abc import Callable
from datetime import datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from api import problems
from api.edge import Edge, edge_of
from api.pages import drawing
from api.pages.assets import address_of, takes_gzip

_TEMPLATES = Path(__file__).parent / "templates"
_THIN = "\N{NARROW NO-BREAK SPACE}"
_ZIPPED_FROM_BYTES = 2_000
# Nothing that stands in a page is run, and nothing of a page goes anywhere else.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept-Encoding, Cookie",
}


def percent(value: float | None, places: int = 2) -> str:
    """A fraction in percent, with a true minus; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:.{places}f}{_THIN}%".replace("-", "−")


def usd(value: float) -> str:
    """An amount of USD, without cents."""
    return f"${value:,.0f}"


def age(seconds: float) -> str:
    """How long ago, in the largest unit that tells two of them apart."""
    for size, unit in ((2 * 86_400, "d"), (2 * 3_600, "h"), (120, "min"), (0, "s")):
        if seconds >= size:
            each = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}[unit]
            return f"{seconds // each:,.0f}{_THIN}{unit}"
    return f"0{_THIN}s"


def instant(at: datetime) -> str:
    """An instant for people, UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, usd=usd, age=age, instant=instant)
    environment.globals.update(asset=address_of, drawing=drawing)
    return environment


def render(
    request: Request, template: str, status: HTTPStatus = HTTPStatus.OK, **facts: Any
) -> Response:
    """A page."""
    return _answer(request, _text(request, template, facts), status)


async def page(request: Request, make: Callable[[Edge], Response]) -> Response:
    """What `make` gives, in a thread; where that fails as expected, a page that says so.

    Args:
        make: asks for facts and renders them.
    """
    try:
        return await asyncio.to_thread(make, edge_of(request))
    except problems.EXPECTED as error:
        told = problems.describe(error)
        if told is None:
            raise
        response = failure(request, HTTPStatus(told["status"]), told["detail"])
        if told["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = problems.RETRY_AFTER_SEC
        return response


def failure(request: Request, status: HTTPStatus, why: str) -> Response:
    """A page that says why there is none."""
    return render(request, "problem.html", status, title=status.phrase, why=why)


def _text(request: Request, template: str, facts: dict[str, Any]) -> bytes:
    # Who has the cookie can be logged out; who sends a header has nothing to forget.
    common = {"logged_in": "riskhub_token" in request.cookies}
    return _environment().get_template(template).render(common | facts).encode()


def _answer(request: Request, body: bytes, status: HTTPStatus) -> Response:
    headers = dict(_HEADERS)
    if len(body) >= _ZIPPED_FROM_BYTES and takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=1, mtime=0)
    return Response(body, status, headers, media_type="text/html")
