"""How Kafka is reached, and how workers take what goes wrong; nested into `riskhub.settings`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class ControlBusSettings(BaseModel):
    """Kafka, beyond its brokers and the topic."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    partitions: int = Field(
        default=6, ge=1, le=10_000, description="Of a topic that the relay has to make."
    )
    replication: int | None = Field(
        default=None,
        ge=1,
        le=32_767,
        description="Of such a topic; null is 3, with so many brokers.",
    )
    max_event_bytes: int = Field(
        default=20 * 2**20,
        ge=64 * 1024,
        le=2**30,
        description="The largest event; a topic that the relay makes takes it.",
    )
    ack_timeout_sec: float = Field(
        default=15.0, gt=0, description="With no word of the brokers for so long, begin anew."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = Field(
        default=None, description="The brokers' authority, a PEM file; else the system's."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (
            self.sasl_username and self.sasl_password
        ):
            raise ValueError(
                f"security_protocol {self.security_protocol} also needs sasl_username and "
                "sasl_password"
            )
        return self


class WorkerSettings(BaseModel):
    """`riskhub worker`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    group: str = Field(
        default="worldservice-risk-hub",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="Workers of one group share the events.",
    )
    attempts: int = Field(
        default=3, ge=1, le=100, description="To handle an event, before it is a dead letter."
    )
    backoff_sec: float = Field(
        default=0.2, ge=0, le=60, description="Before the second of them; it doubles from there."
    )
    batch: int = Field(default=256, ge=1, le=10_000, description="Events handled together.")
    handlers: tuple[str, ...] | None = Field(
        default=None, description="Names of the handlers to run; null is all that are installed."
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="The address of the worker's metrics."
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="Where Prometheus finds the worker's metrics."
    )
