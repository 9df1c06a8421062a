"""What becomes of a request that fails in a way without a name (see also test_access.py)."""

import asyncio
import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.last_resort import AnswerBroken, LastResort

HTTP = {"type": "http", "method": "GET", "path": "/", "headers": []}
WORDS = "of a payload"


async def receive() -> Message:
    return {"type": "http.request"}


def test_an_answer_that_had_begun_is_broken_off_and_not_begun_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    sent: list[str] = []

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError(WORDS)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    with pytest.raises(AnswerBroken) as broken:
        asyncio.run(LastResort(fails)(HTTP, receive, send))
    # The server prints it: without what it came of, which the log has without its words.
    assert broken.value.__suppress_context__
    assert sent == ["http.response.start"]
    assert "RuntimeError" in caplog.text
    assert WORDS not in caplog.text


def test_one_that_is_called_off_stays_called_off() -> None:
    async def called_off(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def send(message: Message) -> None:
        raise AssertionError("answered")

    async def serve() -> None:
        await LastResort(called_off)(HTTP, receive, send)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(serve())
