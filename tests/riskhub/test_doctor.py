"""The doctor: each dependency as it is, and as it is when something is wrong with it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis
from databases import migrate
from pydantic import SecretStr

from riskhub import doctor
from riskhub.auth import TokenSpec
from riskhub.blobs.settings import BlobSettings
from riskhub.controlbus import kafka
from riskhub.controlbus.settings import ControlBusSettings
from riskhub.doctor import (
    CHECKS,
    Finding,
    check_api,
    check_blobs,
    check_calendars,
    check_clock,
    check_controlbus,
    check_dagster,
    check_database,
    check_home,
    check_prices,
    check_redis,
    check_tokens,
    examine,
    judge_free,
    judge_skew,
)
from riskhub.freshness.settings import FreshnessSettings
from riskhub.prices import PriceSettings
from riskhub.settings import Settings
from riskhub.store import create_engine

SECRET = "hunter2-s3cret"


@pytest.fixture
def settings(tmp_path: Path, free_port: Callable[[], int]) -> Settings:
    """Nothing runs on its ports."""
    ports = ("api_port", "dagster_port", "embedded_redis_port")
    return Settings(home=tmp_path / "home", **{name: free_port() for name in ports})


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def migrated(settings: Settings) -> Settings:
    engine = create_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    return settings


# --- database and clock ----------------------------------------------------------------------


def test_a_migrated_sqlite_is_fine_and_has_our_clock(settings: Settings) -> None:
    assert check_database(migrated(settings)).status == "ok"
    assert check_clock(settings).status == "skipped"


def test_a_missing_sqlite_is_told_and_not_made(settings: Settings) -> None:
    finding = check_database(settings)
    assert finding.status == "fail"
    assert "hub.db" in finding.sentence
    assert "riskhub migrate" in (finding.mend or "")
    assert not settings.home.exists()


def test_a_file_that_is_no_database_is_told(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "hub.db").write_text("this is no database\n" * 100)
    assert check_database(settings).status == "fail"


def test_a_migrated_postgres_is_fine_and_its_clock_is_ours(
    settings: Settings, postgres_url: str
) -> None:
    there = with_(settings, database_url=postgres_url)
    empty = check_database(there)
    assert (empty.status, empty.mend) == ("fail", "run `riskhub migrate`")
    assert check_database(migrated(there)).status == "ok"
    assert check_clock(there).status == "ok"


def test_a_postgres_that_does_not_answer_is_told_without_its_password(
    settings: Settings, free_port: Callable[[], int]
) -> None:
    there = with_(settings, database_url=f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/hub")
    finding = check_database(there)
    assert finding.status == "fail"
    assert "refused" in finding.sentence
    assert SECRET not in repr(finding)
    assert check_clock(there).status == "skipped"


@pytest.mark.parametrize(
    "url", [f"postgresql://me:x@h:{SECRET}/hub", f"mysql://me:{SECRET}@h/hub", SECRET]
)
def test_an_impossible_database_url_is_told_without_it(settings: Settings, url: str) -> None:
    finding = check_database(with_(settings, database_url=url))
    assert finding.status == "fail"
    assert SECRET not in repr(finding)


@pytest.mark.parametrize(
    ("skew", "status", "told"),
    [
        (0.02, "ok", "0.02 s ahead"),
        (-5.0, "warn", "5 s behind"),
        (299.0, "warn", "299 s ahead"),
        (301.0, "fail", "301 s ahead"),
        (-301.0, "fail", "301 s behind"),
    ],
)
def test_clocks_that_are_apart_are_told(
    settings: Settings, skew: float, status: str, told: str
) -> None:
    finding = judge_skew(skew, settings)
    assert finding.status == status
    assert told in finding.sentence


# --- redis -----------------------------------------------------------------------------------


def test_a_redis_that_answers_is_fine(settings: Settings, redis_url: str) -> None:
    finding = check_redis(with_(settings, redis_url=redis_url))
    assert finding.status == "ok"
    assert "ms" in finding.sentence


def test_a_configured_redis_that_does_not_answer_fails(
    settings: Settings, free_port: Callable[[], int]
) -> None:
    url = f"redis://me:{SECRET}@127.0.0.1:{free_port()}/0"
    finding = check_redis(with_(settings, redis_url=url))
    assert finding.status == "fail"
    assert SECRET not in repr(finding)


@pytest.mark.parametrize("url", [f"redis://h:{SECRET}/0", SECRET])
def test_an_impossible_redis_url_is_told_without_it(settings: Settings, url: str) -> None:
    finding = check_redis(with_(settings, redis_url=url))
    assert finding.status == "fail"
    assert SECRET not in repr(finding)


def test_a_stand_in_that_does_not_run_is_a_note(settings: Settings) -> None:
    finding = check_redis(settings)
    assert finding.status == "skipped"
    assert "riskhub up" in (finding.mend or "")


@pytest.mark.parametrize(
    ("kind", "policy", "status"),
    [
        ("redis", "allkeys-lru", "warn"),
        ("redis", "volatile-ttl", "warn"),
        ("redis", "noeviction", "ok"),
        ("inline", "allkeys-lru", "ok"),
    ],
)
def test_a_policy_that_evicts_blobs_is_told(
    settings: Settings,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    policy: str,
    status: str,
) -> None:
    monkeypatch.setattr(redis.Redis, "info", lambda *_: {"maxmemory_policy": policy})
    finding = check_redis(with_(settings, redis_url=redis_url, blobs=BlobSettings(kind=kind)))  # type: ignore[arg-type]
    assert finding.status == status
    assert (policy in finding.sentence) == (status == "warn")


def test_the_policy_is_asked_of_the_redis_itself(settings: Settings, redis_url: str) -> None:
    there = with_(settings, redis_url=redis_url, blobs=BlobSettings(kind="redis"))
    assert check_redis(there).status in {"ok", "warn"}


# --- controlbus ------------------------------------------------------------------------------


class Admin:
    """Stands in for aiokafka's: brokers that have one topic; notes who asks."""

    asked_with: ClassVar[dict[str, Any]] = {}

    def __init__(self, **given: Any) -> None:
        type(self).asked_with = given

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def list_topics(self) -> list[str]:
        return ["risk-hub.controlbus"]

    async def close(self) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize(("topic", "status"), [("risk-hub.controlbus", "ok"), ("other", "warn")])
def test_a_topic_that_is_missing_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, topic: str, status: str
) -> None:
    monkeypatch.setattr(kafka, "AIOKafkaAdminClient", Admin)
    there = with_(settings, controlbus_brokers="kafka:9092", controlbus_topic=topic)
    finding = check_controlbus(there)
    assert finding.status == status
    assert topic in finding.sentence


def test_brokers_are_asked_as_the_processes_ask_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "AIOKafkaAdminClient", Admin)
    bus = ControlBusSettings(
        security_protocol="SASL_PLAINTEXT", sasl_username="hub", sasl_password=SecretStr("s3cret")
    )
    check_controlbus(with_(settings, controlbus_brokers="kafka:9092", controlbus=bus))
    assert Admin.asked_with["security_protocol"] == "SASL_PLAINTEXT"
    assert Admin.asked_with["sasl_plain_password"] == "s3cret"


def test_without_brokers_nothing_is_asked(settings: Settings) -> None:
    assert check_controlbus(settings).status == "skipped"


@pytest.mark.parametrize("brokers", ["127.0.0.1:{port}", "127.0.0.1:{port},127.0.0.1:nonsense"])
def test_brokers_that_do_not_answer_fail(
    settings: Settings, free_port: Callable[[], int], brokers: str
) -> None:
    there = with_(settings, controlbus_brokers=brokers.format(port=free_port()))
    assert check_controlbus(there).status == "fail"


# --- blobs -----------------------------------------------------------------------------------


def test_blobs_that_stay_inline_are_skipped(settings: Settings) -> None:
    assert check_blobs(settings).status == "skipped"


def test_a_probe_goes_into_the_blob_store_and_out_again(settings: Settings, tmp_path: Path) -> None:
    directory = tmp_path / "blobs"
    there = with_(settings, blobs=BlobSettings(kind="file", directory=directory))
    assert check_blobs(there).status == "ok"
    assert not [path for path in directory.rglob("*") if path.is_file()]


def test_a_probe_leaves_nothing_in_redis(settings: Settings, redis_url: str) -> None:
    there = with_(settings, redis_url=redis_url, blobs=BlobSettings(kind="redis"))
    assert check_blobs(there).status == "ok"
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_blob_store_that_cannot_be_written_fails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blobs = BlobSettings(kind="file", directory=tmp_path / "file" / "blobs")
    finding = check_blobs(with_(settings, blobs=blobs))
    assert finding.status == "fail"
    assert finding.mend


@pytest.mark.parametrize("url", [f"redis://h:{SECRET}/0", f"redis://me:{SECRET}@127.0.0.1:1/0"])
def test_a_blob_store_that_is_not_there_fails_without_its_password(
    settings: Settings, url: str
) -> None:
    finding = check_blobs(with_(settings, blobs=BlobSettings(kind="redis", redis_url=url)))
    assert finding.status == "fail"
    assert SECRET not in repr(finding)


# --- tokens and home -------------------------------------------------------------------------


def test_tokens_are_counted(settings: Settings, tmp_path: Path) -> None:
    assert check_tokens(settings).status == "skipped"
    tokens = (TokenSpec(name="a", sha256="a1" * 32),)
    assert check_tokens(with_(settings, tokens=tokens)).sentence == "1 valid"
    file = tmp_path / "tokens.yml"
    file.write_text("[]")
    assert check_tokens(with_(settings, tokens_file=file)).status == "warn"
    file.write_text(f"- {SECRET}")
    broken = check_tokens(with_(settings, tokens_file=file))
    assert broken.status == "fail"
    assert SECRET not in repr(broken)


def test_prices_are_told_with_their_last_day(settings: Settings) -> None:
    finding = check_prices(settings)
    assert finding.status == "ok"
    assert "20 symbols, 1990-01-02 to 2022-12-28" in finding.sentence


def test_prices_that_are_missing_or_no_panel_fail(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    there = with_(settings, prices_path=path)
    assert check_prices(there).status == "fail"
    path.write_text("Date,AAPL\n2024-01-04,\n")
    finding = check_prices(there)
    assert (finding.status, finding.mend) == ("fail", "look at prices_path, and at `prices`")
    assert str(path) in finding.sentence


def test_calendars_are_told_with_what_they_know_and_those_that_are_none(
    settings: Settings,
) -> None:
    assert check_calendars(settings).status == "skipped"
    of_desk = with_(settings, freshness=FreshnessSettings(calendar="XNYS"))
    finding = check_calendars(of_desk)
    assert finding.status == "ok"
    assert finding.sentence.startswith("XNYS is known from ")
    finding = check_calendars(with_(settings, freshness=FreshnessSettings(calendar="MARS")))
    assert (finding.status, finding.mend) == ("warn", "look at the calendars in `freshness`")
    assert "no calendar MARS" in finding.sentence


def test_a_price_table_that_cannot_be_reached_is_told_without_its_password(
    settings: Settings, free_port: Callable[[], int]
) -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/market"
    prices = PriceSettings(kind="table", table="prices", database_url=url)
    finding = check_prices(with_(settings, prices=prices))
    assert finding.status == "fail"
    assert SECRET not in repr(finding)


def test_a_home_is_looked_at_and_not_made(settings: Settings) -> None:
    assert "is writable" in check_home(settings).sentence
    assert not settings.home.exists()


def test_a_home_that_is_a_file_fails(settings: Settings) -> None:
    settings.home.write_text("mine")
    finding = check_home(settings)
    assert finding.status == "fail"
    assert "RISKHUB_HOME" in (finding.mend or "")


@pytest.mark.parametrize(
    ("free", "status"), [(2**34, "ok"), (2**29, "warn"), (2**20, "fail"), (0, "fail")]
)
def test_a_disk_that_is_filling_is_told(free: int, status: str) -> None:
    assert judge_free(Path("/home"), free).status == status


# --- our own processes -----------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Callable[[int], int]]:
    """Starts a server that answers everything with one status; gives its port."""
    with_servers: list[tuple[HTTPServer, threading.Thread]] = []

    def start(status: int) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with_servers.append((server, thread))
        return server.server_port

    yield start
    for server, thread in with_servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("answer", "status"), [(200, "ok"), (503, "fail")])
def test_the_api_is_asked_whether_it_is_ready(
    settings: Settings, answering: Callable[[int], int], answer: int, status: str
) -> None:
    finding = check_api(with_(settings, api_port=answering(answer)))
    assert finding.status == status


def test_processes_of_ours_that_do_not_run_are_a_note(settings: Settings) -> None:
    for finding in (check_api(settings), check_dagster(settings)):
        assert finding.status == "skipped"
        assert "riskhub up" in (finding.mend or "")


# --- all of it -------------------------------------------------------------------------------


def test_all_are_asked_and_told_in_order(settings: Settings) -> None:
    findings = examine(migrated(settings))
    assert [finding.name for finding in findings] == [name for name, _ in CHECKS]
    assert {finding.status for finding in findings} <= {"ok", "warn", "skipped"}


def test_one_that_hangs_does_not_hold_up_the_others(settings: Settings) -> None:
    hanging = threading.Event()

    def hangs(_: Settings) -> Finding:
        hanging.wait()
        return Finding("hangs", "ok", "at last")

    def answers(_: Settings) -> Finding:
        return Finding("answers", "ok", "here")

    findings = examine(settings, [("answers", answers), ("hangs", hangs)], deadline_sec=1.0)
    hanging.set()
    assert [(finding.name, finding.status) for finding in findings] == [
        ("answers", "ok"),
        ("hangs", "fail"),
    ]


def test_a_bug_is_not_made_to_look_like_an_illness(settings: Settings) -> None:
    def broken(_: Settings) -> Finding:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        examine(settings, [("broken", broken)])


def test_a_server_that_accepts_and_says_nothing_is_cut_off(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_TIMEOUT_SEC", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        there = with_(
            settings,
            api_port=port,
            redis_url=f"redis://127.0.0.1:{port}/0",
            controlbus_brokers=f"127.0.0.1:{port}",
        )
        assert check_api(there).status != "ok"
        assert check_redis(there).status == "fail"
        assert check_controlbus(there).status == "fail"
