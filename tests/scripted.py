"""A scripted hub, a clock that only sleeping moves, and both clients behind one face."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
from builders import NOW

from riskhub.client import Runtime

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Script:
    """Answers requests as told, one after the other; the last answer goes on for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return answer(request)
        return httpx.Response(  # a response can be read by one client only
            answer.status_code, headers=answer.headers, content=answer.content
        )

    @property
    def versions(self) -> list[str]:
        return [json.loads(request.content)["version"] for request in self.requests]


class Time:
    """What the clients sleep by. `chance` is what the jitter gets."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []
        self.chance = 1.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def runtime(self) -> Runtime:
        return Runtime(
            lambda: self.seconds, self.now, lambda: self.chance, self.sleep, self.async_sleep
        )

    def now(self) -> datetime:
        return NOW


class Producer:
    """Either client, called the same way."""

    def __init__(self, client: Any, run: Callable[[Any], Any]) -> None:
        self.client = client
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *words, **named: self._run(getattr(self.client, name)(*words, **named))

    def list(self, *words: Any, **named: Any) -> list[Any]:
        found = self.client.list(*words, **named)
        if isinstance(found, Iterator):
            return list(found)

        async def collect() -> list[Any]:
            return [document async for document in found]

        return self._run(collect())


def created(request: httpx.Request) -> httpx.Response:
    """As the hub answers a first landing."""
    return httpx.Response(201, json=json.loads(request.content))


def problem(status: int, detail: str = "no", **others: Any) -> httpx.Response:
    """As the hub refuses."""
    document = {"status": status, "detail": detail, "errors": []} | others
    return httpx.Response(
        status, json=document, headers={"Content-Type": "application/problem+json"}
    )
