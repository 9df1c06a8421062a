"""Every setting, once.

A setting is read from the environment as ``RISKHUB_<NAME>`` (nested: ``RISKHUB_GOVERNOR__MODE``).
Nothing is read at import: an edge calls `load_settings` once and hands the result down.
"""

from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from riskhub.auth import TokenSpec
from riskhub.blobs.settings import BlobSettings
from riskhub.errors import RiskHubError
from riskhub.governor.settings import GovernorSettings

_REPOSITORY = Path(__file__).resolve().parent.parent


class SettingsInvalid(RiskHubError):
    """A setting has a value it can't have; the text names each one."""


class Settings(BaseSettings):
    """The effective settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="RISKHUB_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    home: Path = Field(
        default=Path(".riskhub"),
        description="Directory for all that the embedded profile keeps: database, Dagster, logs.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the hub's database; without one, SQLite in `home`.",
    )
    redis_url: str | None = Field(
        default=None,
        description="Redis that the governor uses; without one, the embedded stand-in.",
    )
    cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Memory of each API process for what is read often."
    )
    token: SecretStr | None = Field(
        default=None,
        description="Bearer token for everything; without any token the API serves loopback only.",
    )
    tokens: tuple[TokenSpec, ...] = Field(
        default=(), description="More tokens, each with scopes and, if it is to be, actors."
    )
    tokens_file: Path | None = Field(
        default=None, description="YAML or JSON list of tokens, read again when it changes."
    )
    read_auth: bool = Field(default=True, description="Whether reads need a token as well.")
    controlbus_brokers: str | None = Field(
        default=None, description="Kafka bootstrap servers, host:port,host:port."
    )
    controlbus_topic: str = Field(default="risk-hub.controlbus", min_length=1)
    blobs: BlobSettings = BlobSettings()
    inline_cov_threshold: int = Field(
        default=4096,
        ge=0,
        description="A covariance, realized returns or stress of more numbers than this is kept "
        "in the blob store, by client and hub alike.",
    )

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=1, le=65535)
    api_workers: int = Field(default=1, ge=1, le=64, description="Processes that share the port.")
    dagster_host: str = "127.0.0.1"
    dagster_port: int = Field(default=3000, ge=1, le=65535)
    code_server_port: int = Field(default=4266, ge=1, le=65535)
    embedded_redis_port: int = Field(default=6399, ge=1, le=65535)

    future_tolerance_sec: int = Field(
        default=300, ge=0, description="How far ahead of the hub's clock `as_of` may be."
    )
    max_body_bytes: int = Field(
        default=16 * 2**20, ge=1024, description="Largest snapshot, also as a line of a batch."
    )
    max_header_bytes: int = Field(default=16 * 1024, ge=1024)
    header_timeout_sec: float = Field(
        default=10.0, gt=0, description="For a client to send the head of a request."
    )
    body_timeout_sec: float = Field(
        default=30.0, gt=0, description="For the next bytes of a body to arrive."
    )
    drain_sec: int = Field(
        default=20, ge=0, description="After SIGTERM, for requests in flight to be answered."
    )
    metrics_max_worlds: int = Field(
        default=1000, ge=1, description="Worlds and stages with a metric of their own per process."
    )

    prices_path: Path = Field(
        default=_REPOSITORY / "data" / "sp500_prices.csv.gz",
        description="Daily prices that give returns to a snapshot which carries none.",
    )
    partitions_start: date = Field(
        default=date(1990, 1, 1), description="First daily partition of the Dagster assets."
    )
    risk_window: int = Field(default=500, ge=2, description="Returns a risk number is made from.")
    risk_min_returns: int = Field(
        default=250, ge=2, description="With fewer returns a number is unavailable, not guessed."
    )

    stale_after_sec: int = Field(default=600, ge=1)
    critical_after_sec: int = Field(default=1800, ge=1)
    timeless_stages: frozenset[str] = Field(
        default=frozenset({"backtest"}), description="Stages that are never stale."
    )

    governor: GovernorSettings = GovernorSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _open_to_others_only_with_a_token(self) -> Self:
        if self.token is None and not _is_loopback(self.api_host):
            raise ValueError(
                f"RISKHUB_API_HOST is {self.api_host}, which others can reach: "
                "set RISKHUB_TOKEN, or stay on 127.0.0.1"
            )
        return self

    @property
    def effective_database_url(self) -> str:
        """The hub's database as an SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'hub.db'}"

    @property
    def effective_redis_url(self) -> str:
        """The Redis that every process uses."""
        return self.redis_url or f"redis://127.0.0.1:{self.embedded_redis_port}/0"

    @property
    def dagster_home(self) -> Path:
        """Where Dagster keeps what it keeps, and reads ``dagster.yaml``."""
        return self.home.resolve() / "dagster"

    @property
    def api_url(self) -> str:
        """Where this machine reaches the API."""
        return f"http://{self.api_host}:{self.api_port}"

    @property
    def dagster_url(self) -> str:
        """Where this machine reaches the Dagster UI."""
        return f"http://{self.dagster_host}:{self.dagster_port}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings() -> Settings:
    """Settings from the environment.

    Raises:
        SettingsInvalid: naming each environment variable with an impossible value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"RISKHUB_{'__'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        )
        raise SettingsInvalid(problems) from error
