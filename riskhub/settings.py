"""Every setting, once.

They stand under the key ``risk_hub`` of a YAML file: the one that ``RISKHUB_CONFIG`` names, else
``riskhub.yml`` in the working directory if it is there. The environment comes before the file, as
``RISKHUB_<NAME>`` (nested: ``RISKHUB_GOVERNOR__MODE``), or as a file of its own that
``RISKHUB_<NAME>_FILE`` names: see `riskhub.environment`. Nothing is read at import: an edge calls
`load_settings` once and hands the result down.
"""

import functools
import os
import re
from collections.abc import Iterator
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from riskhub import strict_yaml
from riskhub.alerts.settings import AlertSettings
from riskhub.auth import Secret, TokensInvalid, TokenSpec, read_tokens
from riskhub.blobs.settings import BlobSettings
from riskhub.controlbus.settings import ControlBusSettings, WorkerSettings
from riskhub.environment import (
    PREFIX,
    Environment,
    SettingsInvalid,
    absolute_files,
    given_as,
    variable_of,
    variables,
)
from riskhub.exits.settings import ExitSettings
from riskhub.freshness.settings import FreshnessSettings
from riskhub.governor.settings import GovernorSettings
from riskhub.prices.settings import PriceSettings
from riskhub.run_workers import RunWorkerSettings, check_dagster_database
from riskhub.shipped import shipped
from riskhub.strict_json import join_path

__all__ = ["Settings", "SettingsInvalid", "load_settings"]

SECTION = "risk_hub"
CONFIG_VARIABLE = "RISKHUB_CONFIG"
CONFIG_FILE = Path("riskhub.yml")

Steps = tuple[str | int, ...]
Days = Annotated[int, Field(ge=0, le=36_500)]


class RetentionSettings(BaseModel):
    """How long what is old is kept: snapshots and budgets by default for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    days: dict[str, Days | None] = Field(
        default={},
        description="Stage to days that an expired snapshot is kept after its receipt.",
    )
    default_days: Days | None = Field(
        default=None, description="The same for every other stage; null keeps for ever."
    )
    blob_grace_hours: float = Field(
        default=24.0,
        ge=1,  # a post that has just looked at a blob must land within it
        le=36_500 * 24,
        description="How long a blob that nothing refers to is kept, beginning when that is seen.",
    )
    budget_days: Days | None = Field(
        default=None,
        description="Days that the governor's cycles and budgets are kept; null keeps for ever.",
    )
    run_log_days: Days | None = Field(
        default=30,
        description="Days that the log lines of a finished Dagster run are kept; what it "
        "materialized and checked stays. null keeps for ever.",
    )

    @property
    def removes_snapshots(self) -> bool:
        """Whether any stage is not kept for ever."""
        return any(days is not None for days in (self.default_days, *self.days.values()))


class RiskSettings(BaseModel):
    """What risk numbers are made with where a snapshot says nothing of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fallback_sigma: float = Field(
        default=0.03,
        gt=0,
        le=1,
        description="Daily deviation of a symbol of which nothing at all is known.",
    )
    fallback_correlation: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Of two such symbols on the same side; an unknown hedge is no hedge.",
    )
    draws: int = Field(
        default=10_000, ge=1_000, le=1_000_000, description="Of the Monte Carlo simulation."
    )
    seed: int = Field(default=0, ge=0, description="Of the Monte Carlo simulation.")
    degrees: float | None = Field(
        default=5.0,
        gt=2,
        description="Of the multivariate t that is simulated; null for the normal.",
    )
    loss_limit: float = Field(
        default=0.1,
        gt=0,
        description="The loss, a fraction of equity, that the reverse stress finds the shock for.",
    )


class Settings(BaseSettings):
    """The effective settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # it may be a secret
    )

    profile: Literal["dev", "prod"] = Field(
        default="dev",
        description="`prod` refuses to start without Postgres, Redis, ControlBus and a token.",
    )
    home: Path = Field(
        default=Path(".riskhub"),
        description="Directory for all that the embedded profile keeps: database, Dagster, logs.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of the hub's database; without one, SQLite in `home`.",
    )
    database_connections: int = Field(
        default=8,
        ge=2,  # a reader that stands alone keeps one, and reads with another
        le=1_000,
        description="To Postgres, from each process, at most.",
    )
    redis_url: str | None = Field(
        default=None,
        repr=False,
        description="Redis that the governor uses; without one, the embedded stand-in.",
    )
    cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Memory of each API process for what is read often."
    )
    token: Secret | None = Field(
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
    controlbus_topic: str = Field(default="risk-hub.controlbus", pattern=r"^[A-Za-z0-9._-]{1,245}$")
    controlbus: ControlBusSettings = ControlBusSettings()
    worker: WorkerSettings = WorkerSettings()
    blobs: BlobSettings = BlobSettings()
    dagster_database_url: Annotated[str | None, AfterValidator(check_dagster_database)] = Field(
        default=None,
        repr=False,
        description="Postgres of Dagster's own records in production, as postgresql+psycopg2://.",
    )
    run_broker_url: str | None = Field(
        default=None,
        repr=False,
        description="Redis by which Dagster's runs reach run workers; a database of its own in it.",
    )
    run_worker: RunWorkerSettings = RunWorkerSettings()
    backfill_days_per_run: int | None = Field(
        default=None,
        ge=1,
        description="A backfill of more days is cut into runs side by side; null is a run a range.",
    )
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
    code_server_host: str = Field(
        default="127.0.0.1",
        description="Where Dagster's code server listens, and webserver and daemon find it.",
    )
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
        default=30.0, gt=0, description="For a snapshot to arrive; in a batch, for its next bytes."
    )
    drain_sec: int = Field(
        default=20, ge=0, description="After SIGTERM, for requests in flight to be answered."
    )
    metrics_max_worlds: int = Field(
        default=1000, ge=1, description="Worlds and stages with a metric of their own per process."
    )

    prices_path: Path = Field(
        default=shipped("data/sp500_prices.csv.gz"),
        description="Daily prices that give returns to a snapshot which carries none.",
    )
    prices: PriceSettings = PriceSettings()
    scenarios_path: Path = Field(
        default=shipped("data/scenarios.yaml"), description="The stress scenarios."
    )
    exit_rules_path: Path = Field(
        default=shipped("data/exit_rules.yaml"), description="The exit engine's rules."
    )
    exits: ExitSettings = ExitSettings()
    partitions_start: date = Field(
        default=date(1990, 1, 1), description="First daily partition of the Dagster assets."
    )
    risk_window: int = Field(default=500, ge=2, description="Returns a risk number is made from.")
    risk_min_returns: int = Field(
        default=250, ge=2, description="With fewer returns a number is unavailable, not guessed."
    )
    risk: RiskSettings = RiskSettings()

    stale_after_sec: int = Field(default=600, ge=1)
    critical_after_sec: int = Field(default=1800, ge=1)
    timeless_stages: frozenset[str] = Field(
        default=frozenset({"backtest"}), description="Stages that are never stale."
    )
    freshness: FreshnessSettings = FreshnessSettings()

    retention: RetentionSettings = RetentionSettings()

    governor: GovernorSettings = GovernorSettings()

    alerts: AlertSettings = AlertSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="Of log lines; `auto` is json in profile prod, else text."
    )
    access_log: bool | None = Field(
        default=None, description="A line for each request; null is in profile prod only."
    )
    heartbeat_file: Path | None = Field(
        default=None,
        description="Touched by each turn of a loop: relay, governor, portfolio state, exit "
        "engine, alerts. Its age is what a probe looks at.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code comes first, then the environment, then the file."""
        file = InitSettingsSource(settings_cls, {})
        file.init_kwargs = given_in_file()  # as it stands: it would take API_PORT for api_port
        return init_settings, Environment(settings_cls), file

    @model_validator(mode="after")
    def _may_start(self) -> Self:
        no_token = self._no_token()
        if self.profile == "prod" and (missing := list(self._missing(no_token))):
            raise ValueError(f"profile prod also needs {'; '.join(missing)}")
        if no_token and not _is_loopback(self.api_host):
            raise ValueError(
                f"{_name_of(('api_host',))} is {self.api_host}, which others can reach: set "
                f"{no_token}, or stay on 127.0.0.1"
            )
        return self

    def _missing(self, no_token: str | None) -> Iterator[str]:
        if not (self.database_url or "").startswith(("postgresql://", "postgresql+", "postgres:")):
            yield f"{_both_names('database_url')} of Postgres"
        if not self.redis_url:
            yield _both_names("redis_url")
        if not self.controlbus_brokers:
            yield _both_names("controlbus_brokers")
        if no_token:
            yield no_token

    def _no_token(self) -> str | None:
        """When there is no token, what to set to have one."""
        if self.token or self.tokens:
            return None
        names = " or ".join(_both_names(key) for key in ("token", "tokens", "tokens_file"))
        if not self.tokens_file:
            return names
        try:
            return (
                None if read_tokens(self.tokens_file) else f"{names}: {self.tokens_file} is empty"
            )
        except TokensInvalid as error:
            return f"{names}: {error}"

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
        return f"http://{_from_here(self.api_host)}:{self.api_port}"

    @property
    def code_server(self) -> tuple[str, int]:
        """Where this machine reaches Dagster's code server."""
        return _from_here(self.code_server_host), self.code_server_port

    @property
    def dagster_url(self) -> str:
        """Where this machine reaches the Dagster UI."""
        return f"http://{_from_here(self.dagster_host)}:{self.dagster_port}"


def load_settings() -> Settings:
    """Settings from the environment and the file.

    Raises:
        SettingsInvalid: naming each setting with an impossible value, as ``risk_hub.<path>`` when
            it stands in the file, as ``RISKHUB_<NAME>`` when in the environment, and as
            ``RISKHUB_<NAME>_FILE`` when in a file that is named there.
    """
    # From none of them is raised: their texts and frames hold the values.
    try:
        return Settings()
    except ValidationError as error:
        problems = (
            f"{_name_of(item['loc'])}: {_message(item)}" if item["loc"] else _message(item)
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsInvalid("; ".join(problems)) from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{PREFIX}{field[1]}".upper() if field else PREFIX
        named = [given for given in variables() if given.startswith(name)]
        raise SettingsInvalid(f"{' or '.join(named) or name}: is not JSON") from None


def config_file() -> Path | None:
    """The file that the settings are in, if they are in one.

    Raises:
        SettingsInvalid: ``RISKHUB_CONFIG`` names one that isn't there.
    """
    if named := os.environ.get(CONFIG_VARIABLE):
        path = Path(named).expanduser()
        if not path.is_file():
            raise SettingsInvalid(f"{CONFIG_VARIABLE} names {path}, which is no file")
        return path
    return CONFIG_FILE if CONFIG_FILE.is_file() else None


def given_in_environment() -> dict[str, Any]:
    """What the environment says of the settings, nested as they are."""
    return Environment(Settings)()


def files_in_environment() -> dict[str, str]:
    """The files that the environment names for single settings, as absolute paths."""
    return absolute_files(Settings)


def given_in_file() -> dict[str, Any]:
    """What the file says of the settings. Raises `SettingsInvalid`."""
    if (path := config_file()) is None:
        return {}
    try:
        content = strict_yaml.load(path)
    except strict_yaml.YamlUnreadable as error:
        raise SettingsInvalid(str(error)) from None
    if not isinstance(content, dict) or SECTION not in content:
        raise SettingsInvalid(f"{path} has no key `{SECTION}` at its top")
    section = {} if content[SECTION] is None else content[SECTION]
    if not isinstance(section, dict) or not all(isinstance(key, str) for key in section):
        raise SettingsInvalid(f"{path}: `{SECTION}` must be a mapping of names to values")
    return section


def depth(values: Any, path: Steps) -> int:
    """How many steps of the path these nested values have."""
    for taken, step in enumerate(path):
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return taken
    return len(path)


def _name_of(path: Steps) -> str:
    """How whoever gave this setting knows it, as far as it can be told."""
    in_file, in_environment = depth(given_in_file(), path), depth(given_in_environment(), path)
    if in_file > in_environment:
        return functools.reduce(join_path, path, SECTION)
    # A variable may hold several, as JSON.
    for length in range(len(path), 0, -1):
        if variable := given_as(path[:length]):
            return functools.reduce(join_path, path[length:], variable)
    return variable_of(path)


def _both_names(key: str) -> str:
    return f"{variable_of((key,))} ({SECTION}.{key})"


def _message(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such setting"
    return item["msg"].removeprefix("Value error, ")


def _from_here(host: str) -> str:
    """A host to connect to, for one to listen on: not "everywhere", and IPv6 in brackets."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
