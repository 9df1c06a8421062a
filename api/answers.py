"""Answers that several resources give: JSON that is text already, a page of it."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response


def json_answer(body: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Text that is JSON."""
    return Response(body, status_code=status, media_type="application/json")


def page_answer(request: Request, body: str, next_cursor: str | None) -> Response:
    """A page, whose ``Link`` header leads to the next one with the same question."""
    response = json_answer(body)
    if next_cursor:
        url = request.url.include_query_params(cursor=next_cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return response


def with_age(response: Response, seconds: float) -> Response:
    """An answer that says how old the snapshot is that it comes from, in whole seconds."""
    # As it goes on the wire: by `response.headers` it would take as long as the answer itself.
    response.raw_headers.append((b"x-snapshot-age", b"%d" % seconds))
    return response


def is_known(request: Request, etag: str) -> bool:
    """Whether the client has what this strong `ETag` stands for already: ``If-None-Match``."""
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in known or etag in (tag.removeprefix("W/") for tag in known)
