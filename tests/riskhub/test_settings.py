"""Settings as the environment and the file give them."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from riskhub import embedded
from riskhub.effective import effective, masked_url
from riskhub.settings import Settings, SettingsInvalid, load_settings

EXAMPLE = Path(__file__).resolve().parents[2] / "riskhub.example.yml"
SECRET = "hunter2-s3cret"
SHA = "a1" * 32

PROD = {
    "profile": "prod",
    "database_url": "postgresql://hub@db/hub",
    "redis_url": "redis://cache/0",
    "controlbus_brokers": "kafka:9092",
    "token": SECRET,
}

Configure = Callable[..., Path]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("RISKHUB_", "P28_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Writes the risk_hub block to the file that is found by itself."""

    def write(**settings: Any) -> Path:
        path = tmp_path / "riskhub.yml"
        path.write_text(yaml.safe_dump({"others": {"are": "here"}, "risk_hub": settings}))
        return path

    return write


def refusal() -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# --- who may reach it ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "hub.example"])
def test_without_a_token_the_api_is_for_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("RISKHUB_API_HOST", host)
    with pytest.raises(SettingsInvalid, match=r"^RISKHUB_API_HOST is .* set RISKHUB_TOKEN"):
        load_settings()
    monkeypatch.setenv("RISKHUB_TOKEN", "s3cret")
    assert load_settings().api_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_the_loopback_no_token_is_needed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("RISKHUB_API_HOST", host)
    assert load_settings().api_host == host


def test_a_host_from_the_file_is_named_as_there(configure: Configure) -> None:
    configure(api_host="0.0.0.0")
    assert refusal().startswith("risk_hub.api_host is 0.0.0.0")


def test_tokens_and_a_tokens_file_open_the_host_too(configure: Configure, tmp_path: Path) -> None:
    configure(api_host="0.0.0.0", tokens=[{"name": "a", "sha256": SHA}])
    assert load_settings().tokens[0].name == "a"
    file = tmp_path / "tokens.yml"
    configure(api_host="0.0.0.0", tokens_file=str(file))
    assert f"tokens file {file} can't be read" in refusal()
    file.write_text("[]")
    assert f"{file} is empty" in refusal()
    file.write_text(f"- {SECRET}")
    assert f"tokens file {file}: token 1" in refusal()
    file.write_text(yaml.safe_dump([{"name": "a", "sha256": SHA}]))
    assert load_settings().tokens_file == file


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("hub.example", "http://hub.example:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_api_is_reached_from_here(configure: Configure, host: str, url: str) -> None:
    configure(api_host=host, token=SECRET)
    assert load_settings().api_url == url


# --- secrets ---------------------------------------------------------------------------------


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    monkeypatch.setenv("RISKHUB_TOKEN", SECRET)
    url = f"postgresql://me:{SECRET}@db/hub"
    blobs = {"s3_access_key_id": SECRET, "s3_secret_access_key": SECRET}
    tokens = [{"name": "a", "sha256": SHA}, {"name": "b", "secret": SECRET}]
    configure(database_url=url, tokens=tokens, blobs=blobs)
    settings = load_settings()
    assert SECRET not in repr(settings.model_copy(update={"blobs": None}))
    assert SHA not in repr(settings)
    shown = repr(effective(settings))
    assert SECRET not in shown
    assert SHA not in shown


@pytest.mark.parametrize("name", ["profile", "api_port", "blobs", "governor", "token", "tokens"])
def test_a_wrong_value_is_not_repeated(configure: Configure, name: str) -> None:
    configure(**{name: {SECRET: 1} if name == "token" else [SECRET]})
    assert refusal().startswith(f"risk_hub.{name}")


@pytest.mark.parametrize("token", ["", " padded", "line\nbreak", "x" * 4097])
def test_a_token_that_nobody_could_send_is_refused(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("RISKHUB_TOKEN", token)
    assert refusal().startswith("RISKHUB_TOKEN: ")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@db:5432/hub", "postgresql://me:***@db:5432/hub"),
        ("postgresql://me:p@w/x?y@db/hub", "postgresql://me:***@db/hub"),
        ("redis://:pw@cache/0", "redis://:***@cache/0"),
        ("https://pw@heat/metrics", "https://***@heat/metrics"),
        (
            "postgresql://db/hub?user=me&password=pw&x=1",
            "postgresql://db/hub?user=me&password=***&x=1",
        ),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("me:pw@db/hub", "me:***@db/hub"),
        ("sqlite:////srv/hub.db", "sqlite:////srv/hub.db"),
        ("risk-blobs:", "risk-blobs:"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked_url(url) == shown


# --- the file --------------------------------------------------------------------------------


def test_the_file_in_the_working_directory_is_read(configure: Configure) -> None:
    configure(api_port=8100, governor={"mode": "enforce", "parameters": {"min_usd": 600}})
    settings = load_settings()
    assert settings.api_port == 8100
    assert settings.governor.mode == "enforce"
    assert settings.governor.parameters.min_usd == 600


def test_the_file_that_the_environment_names_comes_instead(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(api_port=8100)
    other = tmp_path / "other.yml"
    other.write_text("risk_hub: {api_port: 8200}")
    monkeypatch.setenv("RISKHUB_CONFIG", "other.yml")
    assert load_settings().api_port == 8200
    monkeypatch.setenv("RISKHUB_CONFIG", "")
    assert load_settings().api_port == 8100


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_CONFIG", "nowhere.yml")
    assert refusal() == "RISKHUB_CONFIG names nowhere.yml, which is no file"


def test_the_environment_comes_before_the_file_setting_by_setting(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(api_port=8100, api_workers=3, governor={"stale_sec": 20, "budget_ttl_sec": 60})
    monkeypatch.setenv("RISKHUB_API_PORT", "8300")
    monkeypatch.setenv("RISKHUB_GOVERNOR__STALE_SEC", "10")
    settings = load_settings()
    assert (settings.api_port, settings.api_workers) == (8300, 3)
    assert (settings.governor.stale_sec, settings.governor.budget_ttl_sec) == (10, 60)
    origins = {one.key: one.origin for one in effective(settings)}
    assert origins["api_port"] == origins["governor.stale_sec"] == "environment"
    assert origins["api_workers"] == origins["governor.budget_ttl_sec"] == "file"
    assert origins["drain_sec"] == origins["governor.mode"] == "default"


def test_an_empty_block_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "riskhub.yml").write_text("risk_hub:\n")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"tokne": 1}, "risk_hub.tokne"),
        ({"API_PORT": 1}, "risk_hub.API_PORT"),
        ({"governor": {"mdoe": 1}}, "risk_hub.governor.mdoe"),
        ({"governor": {"parameters": {"min": 1}}}, "risk_hub.governor.parameters.min"),
        ({"blobs": {"kidn": 1}}, "risk_hub.blobs.kidn"),
        ({"tokens": [{"name": "a", "sha256": SHA, "scope": 1}]}, "risk_hub.tokens[0].scope"),
    ],
)
def test_a_key_that_is_no_setting_is_named(
    configure: Configure, settings: dict[str, Any], name: str
) -> None:
    configure(**settings)
    assert name in refusal()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"api_port": "abc"}, "risk_hub.api_port: "),
        ({"governor": {"mode": "never"}}, "risk_hub.governor.mode: "),
        ({"governor": {"parameters": {"min_usd": -1}}}, "risk_hub.governor.parameters"),
        ({"tokens": [{"name": "a"}]}, "risk_hub.tokens[0]: give either sha256 or secret"),
        ({"tokens": [{"name": "a", "sha256": SHA, "secret": "x"}]}, "risk_hub.tokens[0]: give"),
        ({"tokens": [{"name": "a", "secret": ""}]}, "risk_hub.tokens[0].secret: an empty"),
        ({"tokens": [{"name": "a", "sha256": "A"}]}, "risk_hub.tokens[0].sha256: "),
    ],
)
def test_a_wrong_value_is_named_as_in_the_file(
    configure: Configure, settings: dict[str, Any], name: str
) -> None:
    configure(**settings)
    assert name in refusal()


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("RISKHUB_API_PORT", "abc", "RISKHUB_API_PORT: "),
        ("RISKHUB_GOVERNOR__MODE", "never", "RISKHUB_GOVERNOR__MODE: "),
        ("RISKHUB_GOVERNOR", '{"mode": "never"}', "RISKHUB_GOVERNOR.mode: "),
        ("RISKHUB_GOVERNOR__NOPE", "1", "RISKHUB_GOVERNOR__NOPE: there is no such setting"),
        ("RISKHUB_TOKENS", '[{"name": "a"}]', "RISKHUB_TOKENS[0]: give either"),
        ("RISKHUB_TOKENS", SECRET, "RISKHUB_TOKENS: is not JSON"),
        ("RISKHUB_GOVERNOR__CLUSTERS", SECRET, "RISKHUB_GOVERNOR__CLUSTERS: is not JSON"),
    ],
)
def test_a_wrong_value_is_named_as_in_the_environment(
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    name: str,
) -> None:
    configure(governor={"stale_sec": 20}, api_port=8100)
    monkeypatch.setenv(variable, value)
    assert refusal().startswith(name)


def test_all_that_is_wrong_is_told_at_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(api_port="abc", dagster_port=0)
    monkeypatch.setenv("RISKHUB_LOG_LEVEL", "loud")
    told = refusal()
    assert "risk_hub.api_port: " in told
    assert "risk_hub.dagster_port: " in told
    assert "RISKHUB_LOG_LEVEL: " in told


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"risk_hub:\n  token: '{SECRET}\n", "riskhub.yml, line "),
        (f"risk_hub:\n  token: *{SECRET}\n", "riskhub.yml, line 2: not YAML: found undefined"),
        ("risk_hub:\n  a: 1\n b: 2\n", "riskhub.yml, line 3: not YAML: "),
        ("risk_hub:\n  api_port: 1\n  api_port: 2\n", "line 3: not YAML: a key is given twice"),
        ("risk_hub:\n  partitions_start: 2020-13-01\n", "riskhub.yml: not YAML: ValueError"),
        ("riskhub: {}\n", "riskhub.yml has no key `risk_hub`"),
        ("", "riskhub.yml has no key `risk_hub`"),
        ("- risk_hub\n", "riskhub.yml has no key `risk_hub`"),
        ("risk_hub: [1]\n", "`risk_hub` must be a mapping"),
        ("risk_hub: text\n", "`risk_hub` must be a mapping"),
        ("risk_hub: {on: 1}\n", "`risk_hub` must be a mapping of names"),
        ("risk_hub: " + "[" * 5000, "riskhub.yml: not YAML"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "riskhub.yml").write_text(text)
    assert complaint in refusal()


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "riskhub.yml").write_bytes(b"risk_hub: \xff\xfe\x00")
    assert "riskhub.yml: not YAML" in refusal()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("true", False)])
def test_the_variable_of_deployed_governors_switches_the_test_mode_on(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    configure(governor={"stale_sec": 20})
    monkeypatch.setenv("P28_TEST_MODE", value)
    settings = load_settings()
    assert settings.governor.test_mode is expected
    assert settings.governor.stale_sec == 20
    (shown,) = [one for one in effective(settings) if one.key == "governor.test_mode"]
    assert shown.origin == ("environment" if expected else "default")


def test_our_own_variable_has_the_last_word_on_the_test_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("P28_TEST_MODE", "1")
    monkeypatch.setenv("RISKHUB_GOVERNOR__TEST_MODE", "false")
    assert not load_settings().governor.test_mode
    monkeypatch.setenv("RISKHUB_GOVERNOR", "[1]")
    monkeypatch.delenv("RISKHUB_GOVERNOR__TEST_MODE")
    assert "RISKHUB_GOVERNOR: " in refusal()


# --- values in files of their own ----------------------------------------------------------------


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a file, and names it in the environment."""

    def write(variable: str, content: bytes) -> Path:
        path = tmp_path / "secrets" / variable.lower()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        monkeypatch.setenv(f"{variable}_FILE", str(path))
        return path

    return write


@pytest.mark.parametrize(
    ("variable", "key", "value"),
    [
        ("RISKHUB_TOKEN", "token", SECRET),
        ("RISKHUB_DATABASE_URL", "database_url", f"postgresql://hub:{SECRET}@db/hub"),
        ("RISKHUB_REDIS_URL", "redis_url", f"redis://:{SECRET}@cache/0"),
        ("RISKHUB_PRICES__DATABASE_URL", "prices.database_url", f"mysql://me:{SECRET}@db/p"),
        ("RISKHUB_BLOBS__REDIS_URL", "blobs.redis_url", f"redis://:{SECRET}@cache/1"),
        ("RISKHUB_CONTROLBUS__SASL_PASSWORD", "controlbus.sasl_password", SECRET),
        ("RISKHUB_ALERTS__WATCHDOG_URL", "alerts.watchdog_url", f"https://ping/{SECRET}"),
    ],
)
def test_a_secret_comes_from_the_file_that_the_environment_names(
    named: Callable[[str, bytes], Path], variable: str, key: str, value: str
) -> None:
    named(variable, value.encode() + b"\n")
    settings: Any = load_settings()
    for step in key.split("."):
        settings = getattr(settings, step)
    assert getattr(settings, "get_secret_value", lambda: settings)() == value
    (shown,) = [one for one in effective(load_settings()) if one.key == key]
    assert shown.origin == "named file"
    assert SECRET not in str(shown.value)


def test_secrets_that_belong_together_come_from_two_files(
    named: Callable[[str, bytes], Path], configure: Configure
) -> None:
    configure(blobs={"kind": "s3", "s3_bucket": "blobs"})
    named("RISKHUB_BLOBS__S3_ACCESS_KEY_ID", b"key")
    assert "belong together" in refusal()
    named("RISKHUB_BLOBS__S3_SECRET_ACCESS_KEY", SECRET.encode())
    blobs = load_settings().blobs
    assert blobs.s3_secret_access_key is not None
    assert blobs.s3_secret_access_key.get_secret_value() == SECRET
    assert blobs.s3_bucket == "blobs"
    origins = {one.key: one.origin for one in effective(load_settings())}
    assert origins["blobs.s3_access_key_id"] == "named file"
    assert origins["blobs.s3_bucket"] == "file"


def test_a_file_may_hold_a_whole_group_as_json(named: Callable[[str, bytes], Path]) -> None:
    hooks = [{"name": "desk", "url": f"https://hooks/{SECRET}"}]
    named("RISKHUB_ALERTS__WEBHOOKS", json.dumps(hooks).encode())
    assert load_settings().alerts.webhooks[0].name == "desk"
    named("RISKHUB_ALERTS__WEBHOOKS", SECRET.encode())
    assert refusal() == "RISKHUB_ALERTS__WEBHOOKS_FILE: is not JSON"


def test_a_variable_and_its_file_may_not_differ(
    named: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    named("RISKHUB_TOKEN", SECRET.encode())
    monkeypatch.setenv("RISKHUB_TOKEN", "another")
    assert refusal() == "RISKHUB_TOKEN and RISKHUB_TOKEN_FILE differ: keep one of them"
    monkeypatch.setenv("RISKHUB_TOKEN", SECRET)
    assert load_settings().token is not None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "which is empty"),
        (b"\n", "which is empty"),
        (b"\xff\xfe" + SECRET.encode(), "which is not UTF-8"),
        (SECRET.encode() * 2**17, "which is larger than a setting"),
    ],
)
def test_a_named_file_that_holds_no_value_is_told_with_its_variable(
    named: Callable[[str, bytes], Path], content: bytes, complaint: str
) -> None:
    path = named("RISKHUB_TOKEN", content)
    assert refusal() == f"RISKHUB_TOKEN_FILE names {path}, {complaint}"
    path.unlink()
    assert "can't be read: No such file or directory" in refusal()


def test_a_wrong_value_in_a_named_file_is_named_by_its_variable(
    named: Callable[[str, bytes], Path],
) -> None:
    named("RISKHUB_TOKEN", f"{SECRET}\nline".encode())
    named("RISKHUB_BLOBS__REDIS_URL", SECRET.encode())
    told = refusal()
    assert "RISKHUB_TOKEN_FILE: " in told
    assert "RISKHUB_BLOBS__REDIS_URL_FILE: " in told


def test_a_setting_that_is_itself_a_file_stays_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.yml"
    file.write_text(yaml.safe_dump([{"name": "a", "sha256": SHA}]))
    monkeypatch.setenv("RISKHUB_TOKENS_FILE", str(file))
    settings = load_settings()
    assert settings.tokens_file == file
    assert settings.tokens == ()


def test_a_child_in_another_directory_finds_the_named_files(
    named: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = named("RISKHUB_TOKEN", SECRET.encode())
    monkeypatch.setenv("RISKHUB_TOKEN_FILE", str(path.relative_to(tmp_path)))
    assert embedded.environment(load_settings())["RISKHUB_TOKEN_FILE"] == str(path.resolve())


# --- profiles --------------------------------------------------------------------------------


def test_prod_starts_with_all_that_it_needs(configure: Configure) -> None:
    configure(**PROD)
    assert load_settings().profile == "prod"


def test_prod_names_everything_that_is_missing_at_once(configure: Configure) -> None:
    configure(profile="prod", database_url="sqlite:///hub.db")
    told = refusal()
    for key in ("database_url", "redis_url", "controlbus_brokers", "token", "tokens_file"):
        assert f"RISKHUB_{key.upper()} (risk_hub.{key})" in told


@pytest.mark.parametrize("key", ["database_url", "redis_url", "controlbus_brokers", "token"])
def test_prod_names_only_what_is_missing(configure: Configure, key: str) -> None:
    configure(**{name: value for name, value in PROD.items() if name != key})
    told = refusal()
    assert f"risk_hub.{key}" in told
    assert not [name for name in PROD if name != key and f"risk_hub.{name})" in told]


def test_dev_may_keep_blobs_elsewhere(configure: Configure) -> None:
    configure(blobs={"kind": "file"})
    assert load_settings().blobs.kind == "file"


# --- the example -----------------------------------------------------------------------------


def test_the_example_holds_every_setting_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = Settings()
    monkeypatch.setenv("RISKHUB_CONFIG", str(EXAMPLE))
    shown = effective(load_settings())
    assert {one.key for one in shown if one.origin == "default"} == set()
    by_default = {one.key: one.value for one in effective(defaults)}
    differing = {one.key for one in shown if one.value != by_default[one.key]}
    absolute = {"prices_path", "scenarios_path", "exit_rules_path"}  # the defaults are
    assert differing <= absolute


# --- children --------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere"
    path.mkdir()
    return path


@pytest.mark.parametrize("named", [True, False])
def test_a_child_in_another_directory_has_the_same_settings(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, elsewhere: Path, named: bool
) -> None:
    file = configure(
        api_port=8100, home="home", tokens_file="tokens.yml", blobs={"directory": "blobs"}
    )
    if named:
        file = file.rename("named.yml")
        monkeypatch.setenv("RISKHUB_CONFIG", "named.yml")
    settings = load_settings()
    script = (
        "from riskhub.settings import load_settings; s = load_settings();"
        "print(s.api_port, s.home, s.tokens_file, s.blobs.directory, s.prices_path, sep='\\n')"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=elsewhere,
        env=embedded.environment(settings),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    here = file.absolute().parent
    assert told == [
        "8100",
        str(here / "home"),
        str(here / "tokens.yml"),
        str(here / "blobs"),
        str(settings.prices_path),
    ]
