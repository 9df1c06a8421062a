"""GET /metrics, and what the middleware makes of requests."""

import asyncio
from collections.abc import Iterator

import pytest
from answers import problem_of
from asgi import Api, serving
from builders import Clock, accept
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import routing
from api.app import create_app
from api.metrics import UNMATCHED, RequestMetrics
from riskhub.errors import StoreUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.telemetry import Telemetry

LATEST = "/risk-hub/worlds/{world_id}/snapshots/latest"


def metered(settings: Settings, hub: Hub) -> FastAPI:
    """The app, and a route that fails."""

    async def boom(request: Request) -> Response:
        raise RuntimeError(request.path_params["name"])

    app = create_app(settings, hub)
    routing.install(app, [APIRouter(routes=[APIRoute("/boom/{name}", boom)])])
    return app


@pytest.fixture
def api(settings: Settings, hub: Hub) -> Iterator[Api]:
    with serving(metered(settings, hub)) as api:
        yield api


def read(api: Api, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a metric by the values of their labels, in the order of the labels' names."""
    page = api.get("/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if sample.name == name
    }


def requests(api: Api) -> dict[tuple[str, ...], float]:
    """How often by method, route and status, but for the page itself."""
    counted = read(api, "riskhub_http_requests_total")
    return {labels: value for labels, value in counted.items() if labels[1] != "/metrics"}


def test_requests_are_counted_by_the_template_of_their_route(api: Api) -> None:
    for world in ("a", "b", "c"):
        assert api.get(LATEST.format(world_id=world)).status_code == 404
    assert api.get(LATEST.format(world_id="a"), params={"stage": ""}).status_code == 422
    assert api.request("DELETE", LATEST.format(world_id="a")).status_code == 405
    assert requests(api) == {
        ("GET", LATEST, "404"): 3,
        ("GET", LATEST, "422"): 1,
        ("DELETE", LATEST, "405"): 1,
    }
    timed = read(api, "riskhub_http_request_seconds_count")
    assert (timed["GET", LATEST], timed["DELETE", LATEST]) == (4, 1)


def test_paths_that_nobody_serves_share_one_label(api: Api) -> None:
    for number in range(20):
        api.get(f"/nothing/{number}")
    assert requests(api) == {("GET", UNMATCHED, "404"): 20}


def test_a_request_that_fails_is_counted_as_500(api: Api) -> None:
    assert problem_of(api.get("/boom/secret"), 500)
    assert requests(api) == {("GET", "/boom/{name}", "500"): 1}


def test_a_client_that_left_is_no_failure_of_ours() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    telemetry = Telemetry()
    scope = {"type": "http", "method": "POST"}
    with pytest.raises(ClientDisconnect):
        asyncio.run(RequestMetrics(app, telemetry)(scope, None, None))  # type: ignore[arg-type]
    assert b'{method="POST",route="_unmatched",status="499"} 1.0' in telemetry.exposition([])


def test_the_lag_is_that_of_the_moment_of_the_scrape(api: Api, hub: Hub, clock: Clock) -> None:
    hub.land(
        [
            accept(version="1", as_of="2026-01-31T21:00:00Z"),
            accept(version="2", as_of="2026-01-31T20:00:00Z"),
            accept(version="3", as_of="2026-01-31T21:05:30Z", world_id="ahead"),
            accept(version="4", as_of="2020-01-01T00:00:00Z", stage="backtest"),
        ]
    )
    name = "risk_hub_snapshot_lag_seconds"
    assert read(api, name) == {("paper", "equities"): 300, ("paper", "ahead"): 0}
    clock.advance(1_800)
    assert read(api, name) == {("paper", "equities"): 2_100, ("paper", "ahead"): 1_770}


def test_without_a_database_the_counters_are_still_told(
    api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(**_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(hub.store, "newest_per_world", unavailable)
    assert read(api, "riskhub_store_up") == {(): 0}
    assert requests(api) == {}
    assert read(api, "risk_hub_snapshot_lag_seconds") == {}


def test_unknown_worlds_do_not_grow_the_page(api: Api) -> None:
    async def ask(first: int, last: int) -> None:
        for number in range(first, last):
            path = LATEST.format(world_id=f"unknown-{number}")
            scope = {
                "type": "http",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [],
                "root_path": "",
            }
            await api.app(scope, receive, send)

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(message: object) -> None: ...

    api.run(lambda _: ask(0, 1))
    api.get("/metrics")
    before = len(api.get("/metrics").text.splitlines())
    api.run(lambda _: ask(1, 5_000))
    after = api.get("/metrics").text
    assert len(after.splitlines()) == before
    assert "unknown-" not in after


def test_with_a_token_the_page_needs_it(settings: Settings, hub: Hub) -> None:
    guarded = settings.model_copy(update={"token": SecretStr("t0k3n")})
    with serving(metered(guarded, hub)) as api:
        refused = api.get("/metrics")
        assert (refused.status_code, refused.json()["status"]) == (401, 401)
        answer = api.get("/metrics", headers={"Authorization": "Bearer t0k3n"})
        assert answer.status_code == 200
