"""The demo's history: which snapshots, how they are posted, how their backfill is followed."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from riskhub.demo import history
from riskhub.demo.history import (
    ACTOR,
    STAGE,
    DemoFailed,
    Period,
    check_periods,
    documents,
    follow_backfill,
    launch_backfill,
    parse_periods,
    post,
)
from riskhub.prices import load_panel
from riskhub.settings import Settings
from riskhub.snapshot import validate
from riskhub.strict_json import parse_json

SETTINGS = Settings(home=Path("unused"))
PANEL = load_panel(SETTINGS.prices_path)
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def nothing() -> None:
    """Nothing is gone."""


def year(first: int, last: int | None = None) -> Period:
    return Period(date(first, 1, 1), date(last or first, 12, 31))


@pytest.mark.parametrize(
    ("text", "periods"),
    [
        ("2008", (year(2008),)),
        ("2007-2009", (year(2007, 2009),)),
        ("2007-2009,2020", (year(2007, 2009), year(2020))),
        (" 2007-2009 , 2020 ", (year(2007, 2009), year(2020))),
    ],
)
def test_years_are_read_as_periods(text: str, periods: tuple[Period, ...]) -> None:
    assert parse_periods(text) == periods


@pytest.mark.parametrize(
    "text",
    ["", ",", "2008,", "abc", "2008-", "-2008", "2008-abc", "2009-2008", "0", "99999", "²008"],
)
def test_what_are_no_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_periods(text)


def test_a_period_holds_its_first_and_its_last_day() -> None:
    assert [date(y, m, d) in year(2008) for y, m, d in [(2007, 12, 31), (2008, 1, 1)]] == [
        False,
        True,
    ]
    assert [date(y, m, d) in year(2008) for y, m, d in [(2008, 12, 31), (2009, 1, 1)]] == [
        True,
        False,
    ]


def test_years_without_prices_are_refused_naming_those_that_have_some() -> None:
    check_periods(PANEL, (year(1980), year(2008)))
    with pytest.raises(DemoFailed, match="from 1990-01-02 to 2022-12-28"):
        check_periods(PANEL, (year(1980),))


def test_there_is_a_document_per_world_and_trading_day_oldest_first() -> None:
    found = documents(PANEL, (year(2008), year(2020)))
    days = [day for day in PANEL.days if day.year in (2008, 2020)]
    assert len(found) == 6 * len(days) == 6 * 506
    assert len({(one["world_id"], one["version"]) for one in found}) == len(found)
    assert [one["as_of"] for one in found] == sorted(one["as_of"] for one in found)
    assert {one["as_of"][:10] for one in found} == {str(day) for day in days}


def test_every_document_satisfies_the_contract() -> None:
    for one in documents(PANEL, (year(2008),)):
        snapshot = validate(
            parse_json(json.dumps(one).encode()),
            world_id=None,
            actor=ACTOR,
            stage=STAGE,
            received_at=NOW,
        )
        assert snapshot.as_of.date() == date.fromisoformat(one["version"].removeprefix("backtest-"))


def test_documents_are_the_same_each_time() -> None:
    assert documents(PANEL, (year(2008),)) == documents(PANEL, (year(2008),))


def client_of(handler: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(handler))


def lines_of(request: httpx.Request) -> list[dict[str, Any]]:
    return [json.loads(line) for line in request.content.splitlines()]


def answer(request: httpx.Request, status: int, detail: str = "") -> httpx.Response:
    results = [
        {"line": number, "status": status, "detail": detail}
        for number, _ in enumerate(lines_of(request), start=1)
    ]
    return httpx.Response(200, text="\n".join(map(json.dumps, results)))


def test_posting_sends_every_snapshot_once_and_counts_the_answers() -> None:
    snapshots = documents(PANEL, (year(2008), year(2009)))
    sent: list[dict[str, Any]] = []
    advanced: list[int] = []

    def bulk_door(request: httpx.Request) -> httpx.Response:
        assert request.headers["X-Stage"] == STAGE
        sent.extend(lines_of(request))
        return answer(request, 201)

    with client_of(bulk_door) as client:
        statuses = post(client, SETTINGS, snapshots, advanced.append, nothing)
    assert sent == snapshots
    assert statuses == {201: len(snapshots)}
    assert sum(advanced) == len(snapshots)
    assert max(advanced) == history.LINES_PER_REQUEST < len(snapshots)


def test_a_refused_snapshot_is_named_with_the_reason() -> None:
    snapshots = documents(PANEL, (year(2008),))
    with (
        client_of(lambda request: answer(request, 409, "stored otherwise")) as client,
        pytest.raises(DemoFailed, match=r"refused backtest-2008-01-02 of .* 409: stored otherwise"),
    ):
        post(client, SETTINGS, snapshots, lambda _: None, nothing)


def test_a_hub_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_POLL_SEC", 0.0)
    failures = [httpx.ConnectError("refused"), httpx.ReadError("cut off")]

    def bulk_door(request: httpx.Request) -> httpx.Response:
        if failures:
            raise failures.pop()
        return answer(request, 201)

    with client_of(bulk_door) as client:
        statuses = post(client, SETTINGS, documents(PANEL, (year(2008),)), lambda _: None, nothing)
    assert statuses == {201: 6 * 253}


def test_a_hub_that_stays_away_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PATIENCE_SEC", 0.0)
    monkeypatch.setattr(history, "_POLL_SEC", 0.0)

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with (
        client_of(away) as client,
        pytest.raises(DemoFailed, match=r"no answer from http://.*batch"),
    ):
        post(client, SETTINGS, documents(PANEL, (year(2008),)), lambda _: None, nothing)


def test_a_hub_whose_process_is_lost_is_not_waited_for() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    def lost() -> None:
        raise DemoFailed("api would not stay up")

    with client_of(away) as client, pytest.raises(DemoFailed, match="api would not stay up"):
        post(client, SETTINGS, documents(PANEL, (year(2008),)), lambda _: None, lost)


def test_a_backfill_covers_the_days_asked_for_in_whole_ranges() -> None:
    asked: list[str] = []

    def dagster(request: httpx.Request) -> httpx.Response:
        asked.extend(json.loads(request.content)["variables"]["params"]["partitionNames"])
        return graphql(
            launchPartitionBackfill={"__typename": "LaunchBackfillSuccess", "backfillId": "b1"}
        )

    days = [date(2008, 1, 4), date(2008, 1, 7)]  # a Friday and a Monday
    with client_of(dagster) as client:
        assert launch_backfill(client, SETTINGS, days, nothing) == "b1"
    assert asked == ["2008-01-04", "2008-01-05", "2008-01-06", "2008-01-07"]


@pytest.mark.parametrize(
    "said",
    [
        {"data": {"launchPartitionBackfill": {"__typename": "PythonError", "message": "boom"}}},
        {"errors": [{"message": "boom"}], "data": None},
    ],
)
def test_a_backfill_that_dagster_refuses_is_a_failure_with_its_reason(said: dict[str, Any]) -> None:
    with (
        client_of(lambda _: httpx.Response(200, json=said)) as client,
        pytest.raises(DemoFailed, match="boom"),
    ):
        launch_backfill(client, SETTINGS, [date(2008, 1, 4)], nothing)


def test_a_backfill_is_followed_until_it_succeeds() -> None:
    statuses = iter(["REQUESTED", "REQUESTED", "COMPLETED_SUCCESS"])
    with client_of(lambda _: backfill(next(statuses))) as client:
        looks = list(follow_backfill(client, SETTINGS, "b1", nothing))
    assert len(looks) == 2


@pytest.mark.parametrize("status", ["FAILED", "CANCELED", "COMPLETED_FAILED"])
def test_a_backfill_that_ends_otherwise_is_a_failure_that_names_it(status: str) -> None:
    with (
        client_of(lambda _: backfill(status)) as client,
        pytest.raises(DemoFailed, match=f"backfill b1 ended as {status}"),
    ):
        list(follow_backfill(client, SETTINGS, "b1", nothing))


def backfill(status: str) -> httpx.Response:
    return graphql(
        partitionBackfillOrError={
            "__typename": "PartitionBackfill",
            "status": status,
            "error": None,
        }
    )


def graphql(**data: Any) -> httpx.Response:
    return httpx.Response(200, json={"data": data})
