"""Both clients, on a scripted hub and a clock that only sleeping moves."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import ACTOR, STAGE
from scripted import Producer, Script, Time

from riskhub.client import AsyncRiskHubClient, RetryPolicy, RiskHubClient


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture(params=["sync", "async"])
def producer(request: pytest.FixtureRequest, time: Time) -> Iterator[Callable[..., Producer]]:
    """Makes producers that talk to a script."""
    arguments: dict[str, Any] = {"actor": ACTOR, "stage": STAGE, "runtime": time.runtime()}
    arguments["retry"] = RetryPolicy(attempts=4, first_sec=1, max_sec=3, deadline_sec=60)
    made: list[Producer] = []
    with asyncio.Runner() as runner:

        def make(script: Script, **others: Any) -> Producer:
            mine = arguments | {"transport": httpx.MockTransport(script)} | others
            kind, run = (
                (RiskHubClient, lambda done: done)
                if request.param == "sync"
                else (AsyncRiskHubClient, runner.run)
            )
            made.append(Producer(kind("http://hub", **mine), run))
            return made[-1]

        yield make
        for one in made:
            one.close() if request.param == "sync" else one.aclose()
