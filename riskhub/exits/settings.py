"""The settings of the exit engine, nested into `riskhub.settings`."""

from pydantic import BaseModel, ConfigDict, Field


class ExitSettings(BaseModel):
    """How the loop of the exit engine beats; what it decides by are rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    interval_sec: float = Field(
        default=1.0, gt=0, description="From one look for events to the next."
    )
    look_sec: float = Field(
        default=10.0,
        gt=0,
        description="From one look at every world's numbers and age to the next.",
    )
