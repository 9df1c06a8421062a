"""When something is wrong, and who hears of it; nested into `riskhub.settings`."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+")]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Webhook(BaseModel):
    """Where alerts are posted as JSON with a `text`, as Slack takes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$", description="For marks, metrics and the log.")
    url: SecretStr = Field(description="It may be a secret: Slack's is.")

    @model_validator(mode="after")
    def _is_a_url(self) -> Self:
        if not self.url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.name in RESERVED:
            raise ValueError(f"the name {self.name} is taken")
        return self


RESERVED = ("log", "alertmanager", "watchdog")


class AlertSettings(BaseModel):
    """`riskhub alerts`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    interval_sec: Seconds = Field(default=10.0, description="From one look to the next.")
    open_after_sec: float = Field(
        default=20.0, ge=0, description="So long something must be wrong before it is an alert."
    )
    resolve_after_sec: float = Field(
        default=60.0, ge=0, description="So long it must be right before the alert is resolved."
    )
    repeat_sec: Seconds = Field(
        default=4 * 3600.0, description="An open alert that nobody has acknowledged is told again."
    )
    group_from: int = Field(
        default=5, ge=2, description="So many worlds with the same trouble are one alert."
    )
    keep_days: Count = Field(default=90, description="How long resolved alerts are on record.")
    docs_url: str = Field(
        default="docs/alerts.md", description="Where this deployment has docs/alerts.md."
    )

    # Receivers, besides the log.
    alertmanagers: tuple[Url, ...] = Field(
        default=(), description="Base URLs of Alertmanagers; each is told, as Prometheus does."
    )
    webhooks: tuple[Webhook, ...] = ()
    watchdog_url: SecretStr | None = Field(
        default=None, description="Asked every `watchdog_sec`, for whoever notices silence."
    )
    watchdog_sec: Seconds = 60.0
    timeout_sec: Seconds = Field(default=5.0, description="For a receiver to answer.")

    # Sources and their limits.
    api_url: Url | None = Field(
        default=None, description="The API whose metrics are read; null is that of the settings."
    )
    api_token: SecretStr | None = Field(
        default=None, description="To read them with; null is the token of the settings."
    )
    watch_dagster: bool | None = Field(
        default=None, description="Null: once a Dagster has answered, it must go on answering."
    )
    dagster_url: Url | None = Field(
        default=None, description="Its UI; null is that of the settings."
    )
    dagster_sec: Seconds = Field(default=30.0, description="From one look at Dagster to the next.")
    ignored_checks: tuple[str, ...] = Field(
        default=(
            *("worlds_are_fresh", "light_*", "nothing_quarantined"),
            *("budgets_computed", "exits_acknowledged"),
        ),
        description="Patterns of asset checks that are no alert: these say what is told otherwise.",
    )
    failed_runs_sec: Seconds = Field(
        default=3600.0, description="So long a job whose last run failed is told."
    )
    quarantine_sec: Seconds = Field(
        default=900.0, description="So long a rejected snapshot is told, if it is not the newest."
    )
    lag_sec: Seconds = Field(
        default=60.0, description="A reader that leaves an event lying for longer is behind."
    )
    burst_sec: Seconds = Field(default=300.0, description="The window of the bursts below.")
    burst_5xx: Count = 5
    burst_401: Count = 50
    burst_blob_failures: Count = 1

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [webhook.name for webhook in self.webhooks]
        if len(set(names)) < len(names):
            raise ValueError("two webhooks have the same name")
        return self
