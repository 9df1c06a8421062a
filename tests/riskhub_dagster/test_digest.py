"""The digest as an asset: one page, figures that are charted, and nothing that nobody counted."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import redis
from exiting import load as load_rules
from exiting import opened_episode, rule, write_rules

from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.exits import EngineStep
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.assets.digest import daily_digest
from riskhub_dagster.resources import RiskHub

WEIGHTS = {"AAPL": 0.5, "JPM": 0.5}
DAY = date(2020, 3, 16)
Told = dict[str, Any]


@pytest.fixture
def digest(
    settings: Settings, instance: dg.DagsterInstance, redis_url: str, monkeypatch: Any
) -> Callable[[], Told]:
    """Writes the digest; gives its metadata."""
    monkeypatch.setenv("RISKHUB_REDIS_URL", redis_url)

    def run() -> Told:
        result = dg.materialize([daily_digest], instance=instance, resources={"hub": RiskHub()})
        (event,) = result.get_asset_materialization_events()
        return dict(event.materialization.metadata)

    return run


def test_an_empty_hub_says_so(digest: Callable[[], Told]) -> None:
    told = digest()
    page = told["digest"].value

    assert "None has landed yet." in page
    assert "0 snapshots landed; 0 events" in page
    assert "Exceedances are not known: no outcome of these days, there is none" in page
    assert "Nobody has read the outbox" in page
    assert told["worlds"].value == told["landed"].value == told["budgets"].value == 0
    assert "furthest_behind" not in told  # of no reader; not 0
    assert told["hub_bytes"].value > 0


def test_worlds_are_told_with_their_newest_numbers_and_the_change_since_the_day_before(
    digest: Callable[[], Told], land: Any, compute: Any, records: Any, settings: Settings
) -> None:
    land(DAY, weights=WEIGHTS)
    land(DAY + timedelta(days=1), weights={"BAC": 1.0})
    land(DAY, weights=WEIGHTS, world_id="new_world", stage="live")
    land(DAY + timedelta(days=1), weights={"AAPL": 1}, realized_returns={"portfolio": [-1.0]})
    compute(DAY, DAY + timedelta(days=1))

    told = digest()
    page = told["digest"].value
    (old, new) = records(told["world_table"])

    assert (old["world_id"], old["state"], old["changed_since"]) == (
        "equities", "exempt", "2020-03-16",
    )  # fmt: skip
    assert f"{100 * old['var99']:.2f} %" in page
    assert f"{100 * old['var99_change']:+.2f} % (03-16)" in page
    assert new["var99"] is not None
    assert new["var99_change"] is new["light"] is new["exceedances"] is None
    assert f"[new\\_world]({settings.api_url}/worlds/new_world?stage=live)" in page
    assert "4 snapshots landed (3 backtest, 1 live)" in page
    assert "1 quarantined; 1 are there now" in page
    (held,) = records(told["quarantine_table"])
    assert (held["version"], "returns" in held["why"]) == ("v4", True)


def test_an_exceedance_of_the_last_day_is_told_and_one_of_long_ago_is_not(
    digest: Callable[[], Told],
    land: Any,
    compute: Any,
    records: Any,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    land(date(2020, 3, 13), weights=WEIGHTS)
    compute(date(2020, 3, 13))
    dg.materialize(
        [var_outcomes, var_backtests],
        partition_key=DAY.isoformat(),
        instance=instance,
        resources={"hub": RiskHub()},
    )

    told = digest()
    assert records(told["exceedance_table"]) == []
    assert "no outcome of these days, the last is of 2020-03-16" in told["digest"].value

    evening = datetime(2020, 3, 16, 22, tzinfo=UTC)
    monkeypatch.setattr("riskhub_dagster.assets.digest.utc_now", lambda: evening)
    told = digest()
    (row,) = records(told["exceedance_table"])
    assert row["loss"] > row["var"] > 0
    assert f"lost {100 * row['loss']:.2f} % on 2020-03-16, more than its historical VaR" in (
        told["digest"].value
    )


def test_exits_that_opened_are_told_and_those_that_are_open(
    digest: Callable[[], Told], store: Store, tmp_path: Any, records: Any
) -> None:
    book = load_rules(write_rules(tmp_path / "rules.yaml", rule(), mode="enforce"))
    _, episode, signal = opened_episode(book)
    store.write_exit_step(
        EngineStep([], [episode], [signal], [], 1),
        turn=0, writer="engine on host", rules_digest=book.digest, now=datetime.now(UTC),
    )  # fmt: skip

    told = digest()

    assert told["exits_open"].value == 1
    assert [row["rule"] for row in records(told["exit_table"])] == [episode["rule"]]
    assert "1 exit open" in told["digest"].value


def test_budgets_that_nobody_can_read_are_unknown_and_no_point_of_a_chart(
    digest: Callable[[], Told], monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setenv("RISKHUB_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    told = digest()

    assert "not known: Redis does not answer" in told["digest"].value
    assert not {"budgets", "budgets_usd"} & set(told)


def test_budgets_are_summed(digest: Callable[[], Told], redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for symbol, usd in (("AAPL", 1_000), ("JPM", 234)):
            fields = {"budget_usd": str(usd), "mode": "shadow"}
            fields["timestamp"] = str(datetime.now(UTC).timestamp())
            client.hset(f"quantum:portfolio:budget:{symbol}", mapping=fields)

    told = digest()

    assert told["budgets_usd"].value == 1_234
    assert "2 symbols, 1,234 USD in all, shadow" in told["digest"].value
    assert "Least room: JPM 234, AAPL 1,000" in told["digest"].value
