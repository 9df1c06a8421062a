"""What nobody expected: answered as a problem, and logged without the words of its exception.

An exception's message may quote what it failed at: a payload, a row, a header. So the log has the
kinds of the exceptions and where they were raised, which is what an operator needs, and no message.
"""

import logging
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem, respond
from riskhub.logs import exception_of

_logger = logging.getLogger(__name__)


class AnswerBroken(Exception):
    """An answer could not be finished; the log says why. The server closes the connection."""


class LastResort:
    """ASGI middleware around everything that may fail in a way without a name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; a failure of it is the last thing that happens to it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting_begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting_begin)
        except Exception as error:  # noqa: BLE001 - the outermost of a request
            told = exception_of(error, with_words=False)
            kinds = " of ".join(one["type"] for one in told)
            _logger.error("a request failed: %s", kinds, extra={"exception": told})
            if begun:
                raise AnswerBroken from None
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            response = respond(problem(status, "the hub failed; its log says where"))
            await response(scope, receive, send)
