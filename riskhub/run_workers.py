"""How Dagster's runs are spread over workers, and over machines: the settings of it.

What a worker does with them is in `riskhub_dagster`, beside Dagster.
"""

from pydantic import BaseModel, ConfigDict, Field, model_validator

DAGSTER_DRIVER = "postgresql+psycopg2://"


class RunWorkerSettings(BaseModel):
    """A run worker: how much it does at once, when it begins anew, when it counts as lost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    concurrency: int = Field(
        default=2, ge=1, le=64, description="Runs that one worker has under way, a process each."
    )
    runs_per_process: int = Field(
        default=50, ge=1, description="Runs after which a process is replaced by a fresh one."
    )
    process_mb: int = Field(
        default=1024,
        ge=128,
        description="Resident memory (MiB) beyond which it is replaced when its run has ended.",
    )
    heartbeat_sec: float = Field(
        default=5.0, gt=0, le=60, description="How often the process of a run says that it lives."
    )
    lost_after_sec: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="Silence after which a run counts as lost, and its process ends itself.",
    )
    visibility_timeout_sec: int = Field(
        default=3600,
        ge=1,
        description="After which the broker gives a run that a worker fetched and never began to "
        "another; how long a run takes is no matter.",
    )

    @model_validator(mode="after")
    def _beats_in_time(self) -> "RunWorkerSettings":
        if self.lost_after_sec < 3 * self.heartbeat_sec:
            raise ValueError("lost_after_sec must be three times heartbeat_sec or more")
        return self


def check_dagster_database(url: str | None) -> str | None:
    """The URL as it was given. Raises ValueError for one that Dagster's storage can't use."""
    if url is not None and not url.startswith(DAGSTER_DRIVER):
        raise ValueError(f"must begin with {DAGSTER_DRIVER}, the driver that Dagster's storage has")
    return url
