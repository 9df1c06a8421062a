"""The bulk door: an answer for each line, in order, whatever the lines and the chunks are."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from asgi import Api, serving
from builders import ABSENT, HEADERS, WORLD, Clock, raw_document
from databases import migrate
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

import api.batch as batch_module
from api.app import create_app
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import create_engine, open_store

BATCH = "/risk-hub/snapshots:batch"
LIMIT = 64 * 1024
LIMIT_OF_MEMORY = 6 * 2**20


def line(version: str, *, world_id: Any = WORLD, **overrides: Any) -> bytes:
    return raw_document(version=version, world_id=world_id, **overrides)


def answers_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(answer) for answer in response.content.splitlines()]


def statuses(response: httpx.Response) -> list[tuple[int, int]]:
    return [(answer["line"], answer["status"]) for answer in answers_of(response)]


def send(api: Api, *lines: bytes) -> httpx.Response:
    return api.post(BATCH, content=b"\n".join(lines) + b"\n")


def test_each_line_is_answered_in_order_as_the_single_door_would(api: Api, hub: Hub) -> None:
    response = send(
        api,
        line("v1"),
        line("v1"),
        line("v1", ttl_sec=60),
        line("v2", weights={"A": "1"}),
        b"not json",
        line("v3", world_id=ABSENT),
        line("v1", world_id="fx"),
    )
    answers = answers_of(response)
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4, 5, 6, 7]
    assert [answer["status"] for answer in answers] == [201, 200, 409, 422, 422, 422, 201]
    created, again, conflict, *refused, elsewhere = answers
    assert created | {"line": 2, "status": 200} == again
    assert (created["world_id"], created["version"]) == (WORLD, "v1")
    assert created["hash"] == json.loads(hub.latest(WORLD) or "")["hash"]
    assert conflict["stored"] == created["hash"] != conflict["offered"]
    assert (conflict["world_id"], conflict["version"]) == (WORLD, "v1")
    assert [answer["errors"][0]["field"] for answer in refused] == ["weights.A", "body", "world_id"]
    assert elsewhere["world_id"] == "fx"
    assert [len(hub.page(world, limit=9)[0]) for world in (WORLD, "fx")] == [1, 1]


def test_both_doors_store_the_same_bytes(api: Api) -> None:
    send(api, line("v1"))
    single = api.post(f"/risk-hub/worlds/{WORLD}/snapshots", content=raw_document())
    assert single.status_code == 200
    assert single.content == api.get(f"/risk-hub/worlds/{WORLD}/snapshots/latest").content


def test_a_batch_sent_again_is_all_200(api: Api) -> None:
    lines = [line(f"v{number}") for number in range(1_200)]
    assert statuses(send(api, *lines)) == [(number + 1, 201) for number in range(1_200)]
    assert statuses(send(api, *lines)) == [(number + 1, 200) for number in range(1_200)]


def test_blank_lines_are_counted_and_not_answered(api: Api) -> None:
    response = send(api, b"", line("v1"), b"  \t", line("v2"), b"\r", b"")
    assert statuses(response) == [(2, 201), (4, 201)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_lines_end_as_they_like_the_last_one_not_at_all(api: Api, end: bytes, last: bool) -> None:
    content = end.join([line("v1"), line("v2")]) + (end if last else b"")
    assert statuses(api.post(BATCH, content=content)) == [(1, 201), (2, 201)]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\r\n  \n"])
def test_nothing_sent_is_nothing_answered(api: Api, content: bytes) -> None:
    assert answers_of(api.post(BATCH, content=content)) == []


def test_a_line_over_the_limit_is_413_and_stops_no_other(api: Api) -> None:
    fits = line("fits", constraints={"padding": ""})
    fits = line("fits", constraints={"padding": "x" * (LIMIT - len(fits))})
    assert len(fits) == LIMIT
    over = b" " + fits
    response = send(api, line("v1"), fits, over, line("v2"), over)
    assert statuses(response) == [(1, 201), (2, 201), (3, 413), (4, 201), (5, 413)]
    assert answers_of(response)[2]["errors"][0]["field"] == "body"
    assert statuses(api.post(BATCH, content=over)) == [(1, 413)]  # also as the last, unended


@pytest.mark.parametrize("missing", ["X-Actor", "X-Stage"])
def test_a_producer_that_does_not_say_who_it_is_gets_400(api: Api, missing: str) -> None:
    response = api.post(BATCH, content=line("v1"), headers={missing: ""})
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == missing


def test_lines_land_while_the_request_still_arrives(api: Api, hub: Hub) -> None:
    heads: list[int] = []

    async def slowly() -> AsyncIterator[bytes]:
        for number in range(2 * batch_module.LINES_PER_TRANSACTION):
            if number % batch_module.LINES_PER_TRANSACTION == 0:
                heads.append(hub.store.head())
            yield line(f"v{number}") + b"\n"
        heads.append(hub.store.head())

    api.post(BATCH, content=slowly())
    assert heads == [0, 500, 1000]


# -- chunks ---------------------------------------------------------------------------------------

MIXED = [
    line("v1"),
    b"",
    line("v2", constraints={"text": "é\N{GRINNING FACE}"}),
    b"x" * 2_000,  # over the limit below
    b"\r",
    b"{",
    line("v1", ttl_sec=60),
    b"y" * 1_024,  # exactly at the limit, and no JSON
    line("v3"),
]
EXPECTED = [(1, 201), (3, 201), (4, 413), (6, 422), (7, 409), (8, 422), (9, 201)]


@contextmanager
def api_of_its_own() -> Iterator[Api]:
    with TemporaryDirectory() as home:
        settings = Settings(home=Path(home), max_body_bytes=1_024)
        engine = create_engine(settings.effective_database_url)
        migrate(engine)
        engine.dispose()
        hub = Hub(open_store(settings.effective_database_url), settings, Clock())
        with serving(create_app(settings, hub)) as api:
            yield api


@pytest.fixture(scope="module")
def fresh_worlds() -> Iterator[tuple[Api, Callable[[], str]]]:
    """An app for many examples, each in a world that no other has written to."""
    count = iter(range(10**6))
    with api_of_its_own() as api:
        yield api, lambda: f"w{next(count):06}"


@given(
    cuts=st.lists(st.integers(0, 5_000), max_size=30),
    end=st.sampled_from([b"\n", b"\r\n"]),
    ended=st.booleans(),
)
@settings(max_examples=60)
def test_where_the_chunks_are_cut_makes_no_difference(
    fresh_worlds: tuple[Api, Callable[[], str]], cuts: list[int], end: bytes, ended: bool
) -> None:
    api, new_world = fresh_worlds
    world = new_world().encode()
    lines = [text.replace(WORLD.encode(), world) for text in MIXED]
    # At the limit with its carriage return a line is over it: 1024 bytes are what a line may have.
    expected = [
        (number, 413 if (number == 8 and end == b"\r\n") else status) for number, status in EXPECTED
    ]
    content = end.join(lines) + (end if ended else b"")

    async def chunks() -> AsyncIterator[bytes]:
        start = 0
        for cut in [*sorted(cuts), len(content)]:
            yield content[start:cut]  # also empty ones
            start = max(start, min(cut, len(content)))

    assert statuses(api.post(BATCH, content=chunks())) == expected


def test_byte_by_byte_is_no_different(fresh_worlds: tuple[Api, Callable[[], str]]) -> None:
    api, new_world = fresh_worlds
    content = b"\n".join(MIXED).replace(WORLD.encode(), new_world().encode())

    async def chunks() -> AsyncIterator[bytes]:
        for place in range(len(content)):
            yield content[place : place + 1]

    assert statuses(api.post(BATCH, content=chunks())) == EXPECTED


# -- memory ---------------------------------------------------------------------------------------


async def peak_of(app: FastAPI, chunks: Iterable[bytes]) -> tuple[int, int]:
    """Answer a request of these chunks and forget the answer: peak memory, and answered lines."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": BATCH,
        "raw_path": BATCH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()],
        "server": ("hub", 80),
        "client": ("127.0.0.1", 1),
    }
    source, answered = iter(chunks), 0
    over = False

    async def receive() -> dict[str, Any]:
        nonlocal over
        if over:  # the client stays, and sends no more
            await asyncio.Event().wait()
        chunk = next(source, None)
        over = chunk is None
        return {"type": "http.request", "body": chunk or b"", "more_body": not over}

    async def forget(message: dict[str, Any]) -> None:
        nonlocal answered
        answered += message.get("body", b"").count(b"\n")

    async with app.router.lifespan_context(app):
        gc.collect()
        tracemalloc.start()
        try:
            await app(scope, receive, forget)  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1], answered
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        (lambda: (b"x" * (LIMIT - 1) + b"\n" for _ in range(600)), 600),
        (lambda: (b"x" * LIMIT for _ in range(600)), 1),
        (lambda: (b"x\n" * 500 for _ in range(20)), 10_000),
        (lambda: (b"\n" * LIMIT for _ in range(5)), 0),
    ],
    ids=["40 MB of long lines", "40 MB without an end", "10,000 answers", "blank lines"],
)
def test_memory_does_not_grow_with_the_request(
    settings: Settings, hub: Hub, chunks: Callable[[], Iterable[bytes]], lines: int
) -> None:
    peak, answered = asyncio.run(peak_of(create_app(settings, hub), chunks()))
    assert answered == lines
    assert peak < LIMIT_OF_MEMORY


def test_answers_wait_on_the_disk_when_they_are_many(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "_SPOOL_IN_MEMORY_BYTES", 1_000)
    spools: list[Any] = []
    real = batch_module.tempfile.SpooledTemporaryFile

    def noted(*args: Any) -> Any:
        spools.append(real(*args))
        return spools[-1]

    monkeypatch.setattr(batch_module.tempfile, "SpooledTemporaryFile", noted)
    assert len(answers_of(send(api, *[b"x"] * 100))) == 100
    (spool,) = spools
    assert spool._rolled
    assert spool.closed
