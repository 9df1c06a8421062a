"""Which processes there are: on a laptop, and in production."""

from pathlib import Path
from typing import Any

from riskhub import cast
from riskhub.governor.settings import GovernorSettings
from riskhub.settings import Settings
from riskhub.supervisor import FOR_EVER, ON_A_LAPTOP

SERVICES: dict[str, Any] = {
    "profile": "prod",
    "token": "t0k3n",
    "database_url": "postgresql://127.0.0.1:1/none",
    "redis_url": "redis://127.0.0.1:1/0",
    "controlbus_brokers": "127.0.0.1:1",
    "dagster_database_url": "postgresql+psycopg2://127.0.0.1:1/none",
    "run_broker_url": "redis://127.0.0.1:1/1",
    "worker": {"metrics_port": 1},
}


def names(settings: Settings) -> list[list[str]]:
    return [[child.name for child in group] for group in cast.groups(settings)]


def test_a_laptop_has_a_stand_in_for_redis_and_neither_relay_nor_worker(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert names(settings) == [
        ["redis", "api", "code"],
        ["governor", "exits", "dagster", "daemon", "alerts"],
    ]
    assert cast.manner(settings) is ON_A_LAPTOP


def test_production_has_all_of_them_and_is_never_given_up(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, **SERVICES)
    assert names(settings) == [
        ["api", "code"],
        ["relay", "worker", "runs"],
        ["governor", "exits", "dagster", "daemon", "alerts"],
    ]
    assert cast.manner(settings) is FOR_EVER


def test_the_portfolio_state_is_published_where_its_equity_is_named(tmp_path: Path) -> None:
    governor = GovernorSettings(state_equity_key="account")
    settings = Settings(home=tmp_path, governor=governor, **SERVICES)
    assert names(settings)[1] == ["relay", "worker", "runs", "equity"]


def test_of_production_nothing_is_ready_before_it_runs(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, **SERVICES)
    ready = {child.name: child.is_ready() for group in cast.groups(settings) for child in group}
    assert set(ready.values()) == {False}
