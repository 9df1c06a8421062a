"""`riskhub portfolio-state`, as a person types it and as a supervisor runs it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from builders import raw_document, wait_until
from databases import migrate
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.cli.frame import console
from riskhub.hub import Hub, utc_now
from riskhub.settings import load_settings
from riskhub.snapshot import format_instant
from riskhub.store import Store, create_engine

MARK = {"equity_usd": "200000", "reached_at": "1738000000"}

Run = Callable[..., Result]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    redis_url: str,
) -> Run:
    """Types a command on a wide terminal; the equity is in the hash `account`."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path))
    monkeypatch.setenv("RISKHUB_REDIS_URL", redis_url)
    monkeypatch.setenv("RISKHUB_GOVERNOR__STATE_EQUITY_KEY", "account")
    return lambda *words, **more: CliRunner().invoke(app, ["portfolio-state", *words], **more)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected


def pay_in(client: redis.Redis, usd: float, key: str = "account") -> None:
    client.hset(key, mapping={"equity_usd": usd, "timestamp": int(time.time())})


def test_once_publishes_and_lets_the_next_one_publish(run: Run, client: redis.Redis) -> None:
    client.hset("riskhub:portfolio:high_water", mapping=MARK)
    for usd in (150_000, 180_000):
        pay_in(client, usd)
        result = run("--once")
        assert (result.exit_code, result.output) == (0, "")

    state = client.hgetall("quantum:state:portfolio")
    assert (state["equity_usd"], state["drawdown"]) == ("180000.0", "0.1")


def test_once_without_equity_is_one_sentence_and_exit_code_1(run: Run, client: redis.Redis) -> None:
    result = run("--once")

    assert result.exit_code == 1
    assert result.stderr.startswith("riskhub: no portfolio state is published (equity_missing)")
    assert result.stderr.count("\n") == 1
    assert not client.exists("quantum:state:portfolio")


def test_a_dry_run_prints_and_writes_nothing(run: Run, client: redis.Redis) -> None:
    pay_in(client, 1000, "other")

    result = run("--once", "--dry-run", "--equity-key", "other")

    assert json.loads(result.stdout)["equity_usd"] == 1000
    assert client.keys() == ["other"]


def test_equity_of_a_world_of_the_hub(run: Run, client: redis.Redis) -> None:
    settings = load_settings()
    store = Store(create_engine(settings.effective_database_url))
    migrate(store.engine)
    hub = Hub(store, settings)
    raw = raw_document(as_of=format_instant(utc_now()), constraints={"equity_usd": 4321})
    hub.land([hub.accept(raw, world_id="equities", actor="optimizer", stage="live")])
    store.close()

    assert run("--once", "--world", "equities", "--stage", "live").exit_code == 0
    assert client.hget("quantum:state:portfolio", "equity_usd") == "4321.0"
    refused = run("--once", "--world", "equities", "--stage", "paper")
    assert "equity_missing" in refused.stderr


def test_what_can_not_be_meant_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--once", "--world", "w", "--equity-key", "k").exit_code == 2
    assert run("--once", "--stage", "live").exit_code == 2
    assert run("--interval", "0").exit_code == 2
    own = run("--once", "--equity-key", "quantum:state:portfolio")
    assert (own.exit_code, own.stderr.count("\n")) == (1, 1)
    monkeypatch.delenv("RISKHUB_GOVERNOR__STATE_EQUITY_KEY")
    nowhere = run("--once")
    assert nowhere.exit_code == 1
    assert "governor.state_equity_key" in nowhere.stderr


def test_a_redis_out_of_reach_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setenv("RISKHUB_REDIS_URL", f"redis://127.0.0.1:{free_port()}")

    result = run("--once")

    assert result.exit_code == 1
    assert result.stderr.startswith("riskhub: Redis: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "typed", "left", "code"),
    [
        (["--yes"], "", {}, 0),
        ([], "y\n", {}, 0),
        ([], "n\n", MARK, 1),
        ([], "", MARK, 1),
    ],
)
def test_the_mark_is_forgotten_only_when_it_is_confirmed(
    run: Run,
    client: redis.Redis,
    words: list[str],
    typed: str,
    left: dict[str, str],
    code: int,
) -> None:
    client.hset("riskhub:portfolio:high_water", mapping=MARK)

    result = run("--reset-high-water", *words, input=typed)

    assert result.exit_code == code
    assert client.hgetall("riskhub:portfolio:high_water") == left
    if not words:
        assert "200,000.00 USD, of 2025-01-27 17:46:40Z" in result.stdout


def test_a_mark_that_can_not_be_read_can_be_forgotten(run: Run, client: redis.Redis) -> None:
    client.set("riskhub:portfolio:high_water", "no hash")

    assert run("--reset-high-water", "--yes").exit_code == 0
    assert not client.exists("riskhub:portfolio:high_water")
    assert run("--reset-high-water").stdout == "no high-water mark is kept\n"


def test_it_publishes_again_and_again_until_it_is_told_to_stop(
    run: Run, client: redis.Redis
) -> None:
    pay_in(client, 1000)
    command = [sys.executable, "-m", "riskhub", "portfolio-state", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for usd in ("1000.0", "900.0"):
                wait_until(lambda: client.hget("quantum:state:portfolio", "equity_usd") == usd)  # noqa: B023
                pay_in(client, 900)
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=20)
        finally:
            process.kill()

    assert process.returncode == 0
    first, second = told.splitlines()[:2]
    assert first.endswith('event="no high-water mark was kept: it begins at 1,000.00 USD"')
    assert 'event="published: equity' in second
    assert client.hget("quantum:state:portfolio", "drawdown") == "0.1"
    assert not client.exists("riskhub:portfolio:writer")
