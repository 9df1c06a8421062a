"""`riskhub config`, `token` and `doctor`, as a person types them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.auth import Scope, TokenBook, read_tokens
from riskhub.cli import app
from riskhub.cli import config as commands
from riskhub.cli.config import shown
from riskhub.cli.frame import console
from riskhub.doctor import Finding
from riskhub.effective import effective
from riskhub.settings import Settings

SECRET = "hunter2-s3cret"
PORTS = ("API_PORT", "DAGSTER_PORT", "CODE_SERVER_PORT", "EMBEDDED_REDIS_PORT")

Run = Callable[..., Result]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: Callable[[], int]
) -> Callable[..., Result]:
    """Types a command in a directory of its own, on a wide terminal without settings."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    for name in PORTS:
        monkeypatch.setenv(f"RISKHUB_{name}", str(free_port()))
    return lambda *words: CliRunner().invoke(app, list(words))


def row_of(output: str, key: str) -> list[str]:
    line = next(line for line in output.splitlines() if re.search(rf"│ {re.escape(key)} ", line))
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_config_show_prints_every_setting_and_its_origin(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "riskhub.yml").write_text(
        f"risk_hub:\n  database_url: postgresql://me:{SECRET}@db/hub\n  token: {SECRET}\n"
    )
    monkeypatch.setenv("RISKHUB_GOVERNOR__STALE_SEC", "12.5")
    result = run("config", "show")
    assert result.exit_code == 0
    assert SECRET not in result.output
    assert row_of(result.output, "database_url") == [
        "database_url",
        "postgresql://me:***@db/hub",
        "file",
    ]
    assert row_of(result.output, "token") == ["token", "***", "file"]
    assert row_of(result.output, "governor.stale_sec")[1:] == ["12.5", "environment"]
    assert row_of(result.output, "max_body_bytes")[1:] == ["16 MiB", "default"]
    for one in effective(Settings()):
        assert row_of(result.output, one.key)
    assert f"file: {tmp_path / 'riskhub.yml'}" in result.output


def test_config_show_for_programs(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("config", "show", "--json").stdout)
    assert document["file"] is None
    (tmp_path / "riskhub.yml").write_text("risk_hub: {api_workers: 3, timeless_stages: [b, a]}")
    document = json.loads(run("config", "show", "--json").stdout)
    assert document["file"] == str(tmp_path / "riskhub.yml")
    settings = document["settings"]
    assert settings["api_workers"] == {"value": 3, "origin": "file"}
    assert settings["timeless_stages"]["value"] == ["a", "b"]
    assert settings["cache_bytes"] == {"value": 64 * 2**20, "origin": "default"}
    assert settings["api_port"]["origin"] == "environment"
    assert set(settings) == {one.key for one in effective(Settings())}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("api_port", 18000, "18000"),
        ("cache_bytes", 64 * 2**20, "64 MiB"),
        ("max_header_bytes", 16384, "16 KiB"),
        ("cache_bytes", 3 * 2**29, "1.5 GiB"),
        ("cache_bytes", 1000, "1,000 bytes"),
        ("metrics_max_worlds", 12000, "12,000"),
        ("governor.stale_sec", 30.0, "30"),
        ("governor.parameters.base_risk_pct", 0.02, "0.02"),
        ("governor.parameters.max_usd", 10000.0, "10,000"),
        ("read_auth", True, "yes"),
        ("token", None, "–"),
        ("tokens", [], "–"),
        ("timeless_stages", ["a", "b"], "a, b"),
        ("governor.clusters", {"BTC": "majors"}, '{"BTC": "majors"}'),
        ("log_level", "info", "info"),
    ],
)
def test_a_value_is_shown_as_people_read_it(key: str, value: Any, text: str) -> None:
    assert shown(key, value) == text


def test_a_bad_file_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "riskhub.yml").write_text("risk_hub: {api_prot: 1}")
    for words in (["config", "show"], ["doctor"]):
        result = run(*words)
        assert result.exit_code == 1
        assert result.stderr == "riskhub: risk_hub.api_prot: there is no such setting\n"


def test_a_new_token_comes_with_its_entry(run: Run, tmp_path: Path) -> None:
    result = run("token", "new", "--name", "gw", "--scope", "write", "--actor", "a", "--actor", "b")
    assert result.exit_code == 0
    _, token, _, _, entry = result.stdout.split("\n", 4)
    file = tmp_path / "tokens.yml"
    file.write_text(entry)
    grant = TokenBook(file=file).grant_of(token)
    assert grant is not None
    assert (grant.name, grant.scopes, grant.actors) == (
        "gw",
        frozenset({Scope.WRITE}),
        frozenset({"a", "b"}),
    )
    assert token not in entry
    assert result.stdout.count(token) == 1


def test_a_new_token_may_do_everything_unless_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    file.write_text(run("token", "new").stdout.split("\n", 4)[4])
    (spec,) = read_tokens(file)
    assert spec.scopes == frozenset(Scope)
    assert spec.actors is None
    assert "actors" not in yaml.safe_load(file.read_text())[0]


@pytest.mark.parametrize("words", [["--scope", "admin"], ["--name", ""], ["--name", "x" * 65]])
def test_a_token_that_cannot_be_is_a_wrong_usage(run: Run, words: list[str]) -> None:
    result = run("token", "new", *words)
    assert result.exit_code == 2
    assert words[0] in result.stderr


def test_doctor_fails_without_a_database_and_is_content_with_one(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 1
    assert "riskhub migrate" in result.stdout
    run("migrate")
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "✗" not in result.stdout


def test_doctor_for_programs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("a", "ok", "fine"), Finding("b", "warn", "hm", "mend it")]
    monkeypatch.setattr(commands, "examine", lambda _: findings)
    result = run("doctor", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [
        {"name": "a", "status": "ok", "sentence": "fine", "mend": None},
        {"name": "b", "status": "warn", "sentence": "hm", "mend": "mend it"},
    ]
    findings.append(Finding("c", "fail", "broken", "mend it"))
    assert run("doctor", "--json").exit_code == 1
