"""The demo's live producer: what it posts, and what it leaves in Redis for the governor."""

import json
import time
from datetime import UTC, date, datetime

import numpy as np
import pytest
import redis

from riskhub.demo.history import ACTOR
from riskhub.demo.live import SCENARIOS, STAGE, STATE_TTL_SEC, document, write_state
from riskhub.demo.worlds import weights_by_day, worlds_of
from riskhub.governor import run_cycle
from riskhub.governor.settings import GovernorSettings
from riskhub.prices import load_panel
from riskhub.settings import Settings
from riskhub.snapshot import validate
from riskhub.strict_json import parse_json

PANEL = load_panel(Settings.model_fields["prices_path"].default)
WORLDS = {world.world_id: world for world in worlds_of(PANEL)}
DAY = date(2020, 3, 16)
NOW = datetime(2026, 1, 31, 21, 5, 1, 250, tzinfo=UTC)


def posted(world_id: str) -> dict:
    world = WORLDS[world_id]
    weights = dict(weights_by_day(world, PANEL))[DAY]
    return document(world, PANEL, DAY, weights, window=500, now=NOW)


@pytest.mark.parametrize("world_id", sorted(WORLDS))
def test_a_live_document_satisfies_the_contract_and_is_as_of_now(world_id: str) -> None:
    snapshot = validate(
        parse_json(json.dumps(posted(world_id)).encode()),
        world_id=world_id,
        actor=ACTOR,
        stage=STAGE,
        received_at=NOW,
    )
    assert snapshot.as_of == NOW


@pytest.mark.parametrize("world_id", sorted(WORLDS))
def test_its_covariance_is_complete_and_positive_semidefinite(world_id: str) -> None:
    symbols = WORLDS[world_id].symbols
    pairs = posted(world_id)["covariance"]
    matrix = np.full((len(symbols), len(symbols)), np.nan)
    for key, value in pairs.items():
        first, second = (symbols.index(symbol) for symbol in key.split(","))
        matrix[first, second] = matrix[second, first] = value
    assert np.isfinite(matrix).all()
    assert np.linalg.eigvalsh(matrix)[0] > -1e-12 * np.abs(matrix).max()


def test_its_covariance_is_that_of_the_last_250_daily_returns() -> None:
    world = WORLDS["banks"]
    last = PANEL.return_days.index(DAY)
    bac, jpm = (
        PANEL.returns[last - 249 : last + 1, PANEL.columns([symbol])[0]] for symbol in world.symbols
    )
    by_hand = sum((bac - bac.mean()) * (jpm - jpm.mean())) / 249
    assert posted("banks")["covariance"]["BAC,JPM"] == pytest.approx(by_hand, rel=1e-9)


def test_its_realized_returns_are_500_and_end_on_the_day_of_the_tape() -> None:
    realized = posted("banks")["realized_returns"]["portfolio"]
    weights = dict(weights_by_day(WORLDS["banks"], PANEL))[DAY]
    last = PANEL.return_days.index(DAY)
    bac, jpm = (PANEL.returns[last, PANEL.columns([symbol])[0]] for symbol in ("BAC", "JPM"))
    assert len(realized) == 500
    assert realized[-1] == pytest.approx(weights[0] * bac + weights[1] * jpm, rel=1e-12)


def test_its_stress_is_what_each_crisis_would_have_cost() -> None:
    stress = posted("banks")["stress"]
    weights = dict(weights_by_day(WORLDS["banks"], PANEL))[DAY]
    first, last = SCENARIOS["covid_2020"]
    rows = [row for row, day in enumerate(PANEL.days) if first <= day <= last]
    columns = PANEL.columns(("BAC", "JPM"))
    # From the close before the crisis to its last close.
    growth = PANEL.prices[rows[-1], columns] / PANEL.prices[rows[0] - 1, columns] - 1
    assert stress.keys() == SCENARIOS.keys()
    assert stress["covid_2020"]["pnl"] == pytest.approx(float(weights @ growth), rel=1e-9)


def test_two_posts_at_different_times_are_two_versions() -> None:
    world = WORLDS["banks"]
    weights = dict(weights_by_day(world, PANEL))[DAY]
    later = NOW.replace(microsecond=251)
    versions = {
        document(world, PANEL, DAY, weights, window=500, now=now)["version"] for now in (NOW, later)
    }
    assert len(versions) == 2


def test_the_governor_makes_a_budget_for_each_symbol_of_what_is_left_in_redis(
    redis_url: str,
) -> None:
    now = time.time()
    with redis.Redis.from_url(redis_url, decode_responses=True) as state:
        write_state(state, PANEL, DAY, now)
        cycle = run_cycle(state, GovernorSettings(), now)
        assert {budget.symbol for budget in cycle.budgets} == set(PANEL.symbols)
        left = [key for key in state.scan_iter("quantum:*") if "budget" not in key]
        assert all(0 < state.ttl(key) <= STATE_TTL_SEC for key in left)
        assert any("position:snapshot" in key for key in left)
