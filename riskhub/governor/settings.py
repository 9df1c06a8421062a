"""The settings of the governor, nested into `riskhub.settings`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from riskhub.governor.budget import BudgetParameters

Mode = Literal["shadow", "enforce"]


class GovernorSettings(BaseModel):
    """How budgets are made and where their inputs are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Mode = Field(
        default="shadow",
        description="Written into each budget: `shadow` is to be logged, `enforce` to be obeyed.",
    )
    stale_sec: float = Field(
        default=30.0, gt=0, description="A portfolio state of this age is no longer fresh."
    )
    lkg_max_sec: float = Field(
        default=900.0,
        ge=0,
        description="For how long the last known good value of an input stands in for it, "
        "beginning when it was last fresh.",
    )
    age_haircut: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of a budget that is lost when the portfolio state is last known good: "
        "at the end of its time this much, before that in proportion.",
    )
    drawdown_haircut: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of a budget that a drawdown of 100 % takes, others in proportion.",
    )
    budget_ttl_sec: int = Field(default=300, gt=0, description="How long a written budget lives.")
    heat_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Prometheus page with the portfolio heat; without one, of `heat_world`.",
    )
    heat_timeout_sec: float = Field(
        default=2.0, gt=0, description="For connecting to the heat page, and for it to arrive."
    )
    heat_world: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="World of the hub whose expected shortfall is the heat when there is no "
        "`heat_url`; without either, heat is 0.",
    )
    heat_es_limit: float = Field(
        default=0.05,
        gt=0,
        description="The expected shortfall (97.5 %, a day, a fraction of equity) that is heat 1.",
    )
    contribution_world: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="World of the hub in which a symbol that carries more than its part of the "
        "expected shortfall gets less; without one, none does.",
    )
    clusters: dict[str, str] = Field(default={}, description="Symbol to cluster id.")
    default_cluster: str = Field(
        default="default", min_length=1, description="The cluster of a symbol that names none."
    )
    parameters: BudgetParameters = BudgetParameters()

    interval_sec: float = Field(
        default=10.0, gt=0, description="From one cycle of `riskhub governor` to the next."
    )
    lease_sec: float = Field(
        default=12.0, gt=0, description="After this long without a sign of the writer, another is."
    )
    history_sec: float = Field(
        default=60.0, ge=0, description="Cycles that are stored are so far apart, if all is as was."
    )
    gate_stale_sec: float = Field(
        default=60.0, gt=0, description="A budget of this age is not held against anybody."
    )
    test_mode: bool = Field(
        default=False,
        description="Whether a portfolio state may be injected over HTTP; also P28_TEST_MODE=1.",
    )
    state_interval_sec: float = Field(
        default=5.0, gt=0, description="From one portfolio state of `portfolio-state` to the next."
    )
    state_equity_key: str | None = Field(
        default=None,
        min_length=1,
        description="Redis hash whose `equity_usd` is the equity that `portfolio-state` publishes.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lease_sec <= self.interval_sec:
            raise ValueError(
                f"lease_sec {self.lease_sec} must exceed interval_sec {self.interval_sec}, or "
                "the writer loses its lease between two cycles"
            )
        return self

    def cluster_of(self, symbol: str) -> str:
        """The id of the cluster whose stress applies to `symbol`."""
        return self.clusters.get(symbol, self.default_cluster)
