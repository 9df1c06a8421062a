"""The app as a client sees it, without a socket: for tests of what is answered to what."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from builders import HEADERS
from fastapi import FastAPI


@asynccontextmanager
async def client_of(app: FastAPI, **kwargs: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, between its startup and its shutdown."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://hub", headers=HEADERS, **kwargs
        ) as client,
    ):
        yield client


class Api:
    """An app that runs in a loop of its own, called from a test that has none."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, portal: BlockingPortal) -> None:
        self.app = app
        self._client = client
        self._portal = portal

    def request(self, method: str, url: str, **kwargs: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            return await self._client.request(method, url, **kwargs)

        return self._portal.call(send)

    def get(self, url: str, **kwargs: Any) -> httpx.Response:
        return self.request("GET", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> httpx.Response:
        return self.request("POST", url, **kwargs)

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Run a coroutine with the client in the app's loop."""
        return self._portal.call(work, self._client)


@contextmanager
def serving(app: FastAPI) -> Iterator[Api]:
    """The app, started, and stopped afterwards."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(client_of(app)) as client,
    ):
        yield Api(app, client, portal)
