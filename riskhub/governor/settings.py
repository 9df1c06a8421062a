"""The settings of the governor, nested into `riskhub.settings`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    budget_ttl_sec: int = Field(default=300, gt=0, description="How long a written budget lives.")
    heat_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Prometheus page with the portfolio heat; without one, heat is 0.",
    )
    heat_timeout_sec: float = Field(
        default=2.0, gt=0, description="For connecting to the heat page, and for each read of it."
    )
    clusters: dict[str, str] = Field(default={}, description="Symbol to cluster id.")
    default_cluster: str = Field(
        default="default", min_length=1, description="The cluster of a symbol that names none."
    )
    parameters: BudgetParameters = BudgetParameters()

    def cluster_of(self, symbol: str) -> str:
        """The id of the cluster whose stress applies to `symbol`."""
        return self.clusters.get(symbol, self.default_cluster)
