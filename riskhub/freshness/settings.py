"""What is fresh; nested into `riskhub.settings`."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[int, Field(ge=1)]
Calendar = Annotated[str, Field(min_length=1, max_length=64)]


class FreshnessRule(BaseModel):
    """What holds for some worlds and stages; what it leaves out, the next rule may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: str = Field(
        default="*", min_length=1, description="Its name, or a pattern such as `equities-*`."
    )
    stage: str = Field(default="*", min_length=1, description="The same of the stage.")
    stale_after_sec: Seconds | None = None
    critical_after_sec: Seconds | None = None
    calendar: Calendar | None = None
    exempt: bool | None = Field(default=None, description="Never late, however old.")

    @model_validator(mode="after")
    def _limits_go_together(self) -> Self:
        stale, critical = self.stale_after_sec, self.critical_after_sec
        if (stale is None) != (critical is None):
            raise ValueError("stale_after_sec and critical_after_sec go together")
        if stale is not None and critical is not None and stale > critical:
            raise ValueError(f"stale_after_sec {stale} is beyond critical_after_sec {critical}")
        return self


class FreshnessSettings(BaseModel):
    """Which worlds there must be, and what is late for which of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: tuple[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}/[ -~]{1,128}$")], ...
    ] = Field(default=(), description="Each as world/stage: missing until it lands.")
    calendar: Calendar = Field(
        default="24/7", description="When a world ages: a calendar of exchange-calendars."
    )
    rules: tuple[FreshnessRule, ...] = Field(
        default=(), description="For some worlds; the first that says a thing decides it."
    )
