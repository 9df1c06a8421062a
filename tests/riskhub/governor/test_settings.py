"""Settings that make no sense are refused where they are given."""

import pytest
from pydantic import ValidationError

from riskhub.governor import BudgetParameters, GovernorSettings


def test_the_contract_is_the_default() -> None:
    settings = GovernorSettings()

    assert (settings.mode, settings.stale_sec, settings.budget_ttl_sec) == ("shadow", 30, 300)
    assert (settings.heat_url, settings.heat_timeout_sec) == (None, 2.0)
    assert settings.parameters == BudgetParameters(0.02, 0.4, 0.4, 0.2, 500, 10_000)
    assert (settings.lkg_max_sec, settings.age_haircut, settings.drawdown_haircut) == (900, 0, 0)
    assert (settings.heat_world, settings.contribution_world) == (None, None)
    assert (settings.interval_sec, settings.lease_sec, settings.gate_stale_sec) == (10, 12, 60)
    assert not settings.test_mode


def test_a_parameter_is_set_by_name() -> None:
    settings = GovernorSettings.model_validate({"parameters": {"base_risk_pct": "0.05"}})

    assert settings.parameters == BudgetParameters(base_risk_pct=0.05)


def test_a_symbol_without_a_cluster_is_in_the_default_one() -> None:
    settings = GovernorSettings(clusters={"BTCUSDT": "majors"}, default_cluster="others")

    assert settings.cluster_of("BTCUSDT") == "majors"
    assert settings.cluster_of("ETHUSDT") == "others"


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "on"},
        {"stale_sec": 0},
        {"stale_sec": "inf"},
        {"budget_ttl_sec": 0.5},
        {"heat_url": "localhost:8056"},
        {"heat_timeout_sec": -1},
        {"parameters": {"max_usd": 1}},
        {"base_risk_pct": 0.05},
        {"lkg_max_sec": -1},
        {"age_haircut": 1.01},
        {"drawdown_haircut": -0.1},
        {"heat_es_limit": 0},
        {"heat_world": ""},
        {"lease_sec": 10},
        {"interval_sec": 12},
    ],
)
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GovernorSettings.model_validate(wrong)
