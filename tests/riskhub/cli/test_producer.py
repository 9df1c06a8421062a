"""`riskhub publish`, `lint`, `get` and `backfill`, against a hub that is a process."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import ACTOR, STAGE, WORLD, accept, snapshot_document, wait_until
from served import api_process, migrate_home
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.client import RiskHubClient, backfill
from riskhub.snapshot import format_instant

PRODUCER = ["--actor", ACTOR, "--stage", STAGE]


@pytest.fixture(scope="module")
def hub_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from service_resolution import free_port

    home, port = tmp_path_factory.mktemp("hub"), free_port()
    migrate_home(home)
    with api_process(home, port, RISKHUB_TOKEN="secret"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def riskhub(hub_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    forget_settings(monkeypatch)
    port = hub_url.rpartition(":")[2]
    monkeypatch.setenv("RISKHUB_API_PORT", port)
    monkeypatch.setenv("RISKHUB_TOKEN", "secret")
    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path / "home"))
    return lambda *words, stdin=None: CliRunner().invoke(app, list(map(str, words)), input=stdin)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> str:
    """A world that no other test writes to."""
    return "".join(each if each.isalnum() else "-" for each in request.node.name)[:100]


@pytest.fixture
def hub(hub_url: str) -> Iterator[RiskHubClient]:
    with RiskHubClient(hub_url, actor=ACTOR, stage=STAGE, token="secret") as client:
        yield client


def now(**ago: float) -> str:
    return format_instant(datetime.now(UTC) - timedelta(**ago))


def digest_of(document: dict[str, Any]) -> str:
    return accept(document, received_at=datetime.now(UTC)).digest


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


# -- publish --------------------------------------------------------------------------------------


def test_publish_says_what_the_hub_made_of_each_file(
    riskhub: Callable[..., Result], tmp_path: Path, world: str
) -> None:
    first = write(tmp_path / "1.json", snapshot_document(version="v1"))
    second = write(tmp_path / "2.json", snapshot_document(version="v2"))
    files = ["--snapshot", first, "--snapshot", second, "--snapshot", first]
    result = riskhub("publish", "--world", world, *files, *PRODUCER)
    assert result.exit_code == 0, result.output
    told = [line.split()[:3] for line in result.stdout.splitlines()]
    assert told == [["created", world, "v1"], ["created", world, "v2"], ["duplicate", world, "v1"]]
    assert result.stdout.split()[3] == accept(world_id=world).digest


def test_publish_reads_stdin_and_the_world_from_the_body(
    riskhub: Callable[..., Result], world: str
) -> None:
    document = json.dumps(snapshot_document(world_id=world))
    result = riskhub("publish", "--snapshot", "-", *PRODUCER, stdin=document)
    assert result.stdout.startswith(f"created  {world}  v1  sha256:")


def test_publish_goes_on_after_a_refusal_and_fails(
    riskhub: Callable[..., Result], tmp_path: Path, world: str
) -> None:
    bad = write(tmp_path / "bad.json", snapshot_document(weights={"A": 0.5}))
    good = write(tmp_path / "good.json", snapshot_document())
    other = write(tmp_path / "other.json", snapshot_document(weights={"A": 1.0}))
    files = ["--snapshot", bad, "--snapshot", good, "--snapshot", other]
    result = riskhub("publish", "--world", world, *files, *PRODUCER)
    assert result.exit_code == 1
    assert result.stdout.startswith("created")
    assert f"{bad}: weights: sum to 0.5" in result.stderr
    assert "is already stored as sha256:" in result.stderr


def test_publish_with_a_wrong_token_ends_at_once(
    riskhub: Callable[..., Result], tmp_path: Path, world: str
) -> None:
    file = write(tmp_path / "1.json", snapshot_document())
    files = ["--snapshot", file, "--snapshot", file]
    result = riskhub("publish", "--world", world, *files, *PRODUCER, "--token", "wrong")
    assert result.exit_code == 1
    assert result.stderr.count("401") == 1


def test_publish_without_a_hub_can_spool(
    riskhub: Callable[..., Result], tmp_path: Path, world: str, free_port: Callable[[], int]
) -> None:
    file = write(tmp_path / "1.json", snapshot_document())
    where = ["--spool", tmp_path / "spool", "--world", world, *PRODUCER]
    away = f"http://127.0.0.1:{free_port()}"
    # An entry that waits makes it ask once, where otherwise it would be patient.
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "1.json").write_text("{}")
    result = riskhub("publish", "--snapshot", file, *where, "--base-url", away)
    assert result.stdout.startswith(f"spooled  {world}  v1")
    second = write(tmp_path / "2.json", snapshot_document(version="v2"))
    result = riskhub("publish", "--snapshot", second, *where)
    assert result.stdout.startswith(f"created  {world}  v2")
    assert not list((tmp_path / "spool").glob("*.json"))


# -- lint -----------------------------------------------------------------------------------------


def test_lint_tells_the_digest_that_the_hub_will_find(
    riskhub: Callable[..., Result], tmp_path: Path
) -> None:
    document = snapshot_document(as_of=now())
    file = write(tmp_path / "s.json", document)
    result = riskhub("lint", file, "--world", WORLD, *PRODUCER)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{file}: ok  {digest_of(document)}\n"


def test_lint_takes_world_actor_and_stage_from_the_file(
    riskhub: Callable[..., Result], tmp_path: Path
) -> None:
    document = snapshot_document(
        as_of=now(), world_id=WORLD, provenance={"actor": ACTOR, "stage": STAGE}
    )
    result = riskhub("lint", write(tmp_path / "s.json", document))
    assert digest_of(document) in result.stdout


def test_lint_without_a_producer_tells_no_digest(
    riskhub: Callable[..., Result], tmp_path: Path
) -> None:
    result = riskhub("lint", write(tmp_path / "s.json", snapshot_document(world_id=WORLD)))
    assert result.exit_code == 0
    assert "sha256" not in result.stdout
    assert "--actor and --stage" in result.stdout


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"weights": {"A": 60, "B": 40}}, ["weights: sum to 100", "percentages"]),
        ({"weights": {"A": 0.5}}, ["weights: sum to 0.5", "weights lack 0.5"]),
        ({"weights": {"A": 1, "B": -1}}, ["weights: sum to 0", "cash"]),
        ({"ttl_sec": 0, "version": ""}, ["ttl_sec: must be", "version: must be"]),
        ({"world_id": None}, ["world_id: is required"]),
        ({"hash": "sha256:" + "0" * 64}, ["hash: is sha256:000", "hint: hash covers the body"]),
    ],
)
def test_lint_explains_each_problem_by_field(
    riskhub: Callable[..., Result],
    tmp_path: Path,
    overrides: dict[str, Any],
    told: list[str],
) -> None:
    document = snapshot_document(as_of=now(), world_id=WORLD) | overrides
    result = riskhub("lint", write(tmp_path / "s.json", document), *PRODUCER)
    assert result.exit_code == 1
    for sentence in told:
        assert sentence in result.stdout


def test_lint_knows_a_hash_that_was_taken_too_early(
    riskhub: Callable[..., Result], tmp_path: Path
) -> None:
    from riskhub.digests import canonical_json, digest

    document = snapshot_document(world_id=WORLD)
    document["hash"] = digest(canonical_json(document))
    result = riskhub("lint", write(tmp_path / "s.json", document), *PRODUCER)
    assert "the body as it stands" in result.stdout


def test_lint_hints_at_age(riskhub: Callable[..., Result], tmp_path: Path) -> None:
    document = snapshot_document(as_of=now(days=3), created_at=now(hours=5), world_id=WORLD)
    result = riskhub("lint", write(tmp_path / "s.json", document), *PRODUCER)
    assert result.exit_code == 0
    assert "as_of is 3 d old" in result.stdout
    assert "ttl_sec has run out since it was made 5 h ago" in result.stdout


def test_lint_checks_every_file(riskhub: Callable[..., Result], tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", snapshot_document(world_id=WORLD))
    (tmp_path / "bad.json").write_text('{"weights": NaN}')
    result = riskhub("lint", tmp_path / "bad.json", good, *PRODUCER)
    assert result.exit_code == 1
    assert "body: holds NaN" in result.stdout
    assert f"{good}: ok" in result.stdout


# -- get ------------------------------------------------------------------------------------------


def test_get_gives_json_on_a_pipe_and_a_table_when_asked(
    riskhub: Callable[..., Result], hub: RiskHubClient, world: str
) -> None:
    published = hub.publish(snapshot_document(), world_id=world)
    assert json.loads(riskhub("get", world).stdout) == published.body
    pretty = riskhub("get", world, "--pretty").stdout
    assert f"{world}  v1  as of 2026-01-31T21:00:00Z" in pretty
    assert "50.0000%" in pretty
    assert published.digest in pretty


def test_get_looks_up_and_lists(
    riskhub: Callable[..., Result], hub: RiskHubClient, world: str
) -> None:
    for day in (1, 2, 3):
        document = snapshot_document(version=f"v{day}", as_of=f"2026-01-0{day}T21:00:00Z")
        hub.publish(document, world_id=world)

    def versions(*words: str) -> list[str]:
        lines = riskhub("get", world, *words).stdout.splitlines()
        return [json.loads(line)["version"] for line in lines]

    assert versions("--version", "v1") == ["v1"]
    assert versions("--as-of", "2026-01-02T22:00:00Z", "--stage", STAGE) == ["v2"]
    assert versions("--list") == ["v3", "v2", "v1"]
    assert versions("--list", "--limit", "2") == ["v3", "v2"]
    refusal = riskhub("get", world, "--as-of", "2026-01-03T22:00:00Z", "--known-at", now(days=1))
    assert refusal.exit_code == 1
    assert "has no such snapshot" in refusal.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--version", "a", "--as-of", "b"],
        ["--version", "a", "--list"],
        ["--known-at", "b"],
        ["--version", "a", "--stage", "b"],
    ],
)
def test_get_asks_one_question(riskhub: Callable[..., Result], words: list[str]) -> None:
    assert riskhub("get", WORLD, *words).exit_code == 2


# -- backfill -------------------------------------------------------------------------------------


def days(count: int) -> list[str]:
    first = datetime(2020, 1, 1, tzinfo=UTC)
    return [str((first + timedelta(days=number)).date()) for number in range(count)]


def ndjson(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def stored(hub: RiskHubClient, world: str) -> dict[str, Any]:
    return {found["version"]: found for found in hub.list(world, include_expired=True)}


def test_backfill_of_weights_is_idempotent(
    riskhub: Callable[..., Result], hub: RiskHubClient, tmp_path: Path, world: str
) -> None:
    weights = {"A": 0.5, "B": 0.5}
    lines = [{"world_id": world, "as_of": day, "weights": weights} for day in days(30)]
    lines.append(snapshot_document(world_id=world, version="whole"))
    source = ndjson(tmp_path / "w.ndjson", lines)
    for outcome in ("created", "duplicate"):
        result = riskhub("backfill", source, *PRODUCER)
        assert (result.exit_code, result.stdout) == (0, f"31 snapshots: 31 {outcome}\n")
    found = stored(hub, world)
    assert set(found) == {*days(30), "whole"}
    assert found["2020-01-02"]["as_of"] == "2020-01-02T21:00:00Z"
    assert [path.name for path in tmp_path.iterdir()] == ["w.ndjson"]


def test_backfill_tells_refused_and_conflicting_lines_with_reasons(
    riskhub: Callable[..., Result], tmp_path: Path, world: str
) -> None:
    good = {"world_id": world, "as_of": "2020-01-01", "weights": {"A": 1}}
    lines = [good, good | {"weights": {"A": 2}}, good | {"weights": {"B": 1}}]
    source = ndjson(tmp_path / "w.ndjson", lines)
    with source.open("a") as file:
        file.write("\nno json\n")
    result = riskhub("backfill", source, *PRODUCER)
    assert result.exit_code == 1
    assert result.stdout == "4 snapshots: 1 created, 1 conflict, 2 refused\n"
    refused = tmp_path / "w.ndjson.refused.ndjson"
    assert str(refused) in result.stderr
    reasons = [json.loads(line) for line in refused.read_text().splitlines()]
    told = [(reason["place"], reason["outcome"]) for reason in reasons]
    assert told == [("line 2", "refused"), ("line 3", "conflict"), ("line 5", "refused")]
    assert reasons[0]["problem"]["errors"][0]["field"] == "weights"
    assert reasons[1]["problem"]["stored"].startswith("sha256:")
    assert reasons[0]["snapshot"]["weights"] == {"A": 2}


def test_a_dry_run_posts_nothing(
    riskhub: Callable[..., Result], hub: RiskHubClient, tmp_path: Path, world: str
) -> None:
    good = {"world_id": world, "as_of": "2020-01-01", "weights": {"A": 1}}
    source = ndjson(tmp_path / "w.ndjson", [good, good | {"weights": {}}])
    result = riskhub("backfill", source, *PRODUCER, "--dry-run")
    assert result.exit_code == 1
    assert result.stdout == "2 snapshots: 1 valid, 1 refused\n"
    assert stored(hub, world) == {}


def test_an_empty_source_is_no_failure(riskhub: Callable[..., Result], tmp_path: Path) -> None:
    source = ndjson(tmp_path / "w.ndjson", [])
    result = riskhub("backfill", source, *PRODUCER)
    assert (result.exit_code, result.stdout) == (0, "0 snapshots: nothing to do\n")


@pytest.mark.parametrize("at", ["25:00Z", "21:00", "noon"])
def test_a_time_of_day_needs_a_zone(
    riskhub: Callable[..., Result], tmp_path: Path, at: str
) -> None:
    source = ndjson(tmp_path / "w.ndjson", [])
    assert riskhub("backfill", source, *PRODUCER, "--at", at).exit_code == 2


def table(**columns: list[Any]) -> pa.Table:
    return pa.table(columns)


def parquet(path: Path, columns: pa.Table) -> Path:
    pq.write_table(columns, path, row_group_size=3)
    return path


def test_backfill_of_parquet_by_date(
    riskhub: Callable[..., Result], hub: RiskHubClient, tmp_path: Path, world: str
) -> None:
    dates = [datetime.fromisoformat(day).date() for day in days(10) for _ in "AB"]
    columns = table(
        world_id=pa.array([world] * 20).dictionary_encode(),
        date=dates,
        symbol=["A", "B"] * 10,
        weight=[0.25, 0.75] * 10,
    )
    source = parquet(tmp_path / "w.parquet", columns)
    result = riskhub("backfill", source, *PRODUCER, "--at", "16:00-05:00")
    assert (result.exit_code, result.stdout) == (0, "10 snapshots: 10 created\n"), result.output
    found = stored(hub, world)
    assert set(found) == set(days(10))
    assert found["2020-01-10"]["as_of"] == "2020-01-10T16:00-05:00"
    assert found["2020-01-10"]["weights"] == {"A": 0.25, "B": 0.75}


def test_backfill_of_parquet_by_instant_takes_the_worlds_that_are_wanted(
    riskhub: Callable[..., Result], hub: RiskHubClient, tmp_path: Path, world: str
) -> None:
    instants = [datetime(2020, 1, day, 21, tzinfo=UTC) for day in (1, 2)]
    columns = table(
        world_id=[world, world, f"{world}-2", f"{world}-2"],
        as_of=pa.array(instants * 2, pa.timestamp("us", "UTC")),
        symbol=["A"] * 4,
        weight=[1.0] * 4,
        version=["a", "b", "a", "b"],
    )
    source = parquet(tmp_path / "w.parquet", columns)
    result = riskhub("backfill", source, "--world", world, *PRODUCER)
    assert result.stdout == "2 snapshots: 2 created\n"
    assert stored(hub, world)["b"]["as_of"] == "2020-01-02T21:00:00.000000Z"
    assert stored(hub, f"{world}-2") == {}


def test_a_single_world_may_be_named_on_the_command_line(
    riskhub: Callable[..., Result], hub: RiskHubClient, tmp_path: Path, world: str
) -> None:
    columns = table(date=["2020-01-01"], symbol=["A"], weight=[1.0])
    source = parquet(tmp_path / "w.parquet", columns)
    assert "no column world_id" in riskhub("backfill", source, *PRODUCER).stderr
    assert riskhub("backfill", source, *PRODUCER, "--world", world).exit_code == 0
    assert set(stored(hub, world)) == {"2020-01-01"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight": [0.5, None]}, "weights.B: is None, not a number"),
        ({"weight": [0.5, float("nan")]}, "weights.B"),
        ({"symbol": ["A", "A"]}, "weights.A: is given twice"),
        ({"symbol": ["A", None]}, "weights.None: is not a symbol"),
        ({"version": ["a", "b"]}, "version: differs between rows"),
        ({"as_of": [datetime(2020, 1, 1)] * 2}, "as_of: must be ISO 8601 with an offset"),  # noqa: DTZ001
        ({"as_of": ["yesterday"] * 2}, "as_of: must be ISO 8601"),
        ({"as_of": [None] * 2}, "as_of: is required"),
    ],
)
def test_rows_that_make_no_snapshot_are_refused_by_field(
    riskhub: Callable[..., Result],
    tmp_path: Path,
    changes: dict[str, list[Any]],
    reason: str,
) -> None:
    good = {
        "world_id": ["w", "w"],
        "as_of": ["2020-01-01T00:00:00Z"] * 2,
        "symbol": ["A", "B"],
        "weight": [0.5, 0.5],
        "version": ["a", "a"],
    }
    source = parquet(tmp_path / "w.parquet", table(**good | changes))
    result = riskhub("backfill", source, *PRODUCER, "--dry-run")
    assert result.stdout == "1 snapshots: 1 refused\n"
    assert reason in (tmp_path / "w.parquet.dry-run-refused.ndjson").read_text()


@pytest.mark.parametrize(
    "dates", [["2020-01-02", "2020-01-01"], ["2020-01-01", "2020-01-02", "2020-01-01"]]
)
def test_rows_that_are_not_in_order_are_told(
    riskhub: Callable[..., Result], tmp_path: Path, dates: list[str]
) -> None:
    rows = len(dates)
    columns = table(world_id=["w"] * rows, date=dates, symbol=["A"] * rows, weight=[1.0] * rows)
    result = riskhub("backfill", parquet(tmp_path / "w.parquet", columns), *PRODUCER, "--dry-run")
    assert result.exit_code == 1
    assert f"row {rows}: 2020-01-01 of w comes after 2020-01-0" in result.stderr


def test_what_is_no_parquet_is_told(riskhub: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "w.parquet").write_text("no")
    result = riskhub("backfill", tmp_path / "w.parquet", *PRODUCER)
    assert "can't be read as Parquet" in result.stderr


def test_a_killed_backfill_goes_on_where_it_was(
    riskhub: Callable[..., Result],
    hub: RiskHubClient,
    tmp_path: Path,
    world: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 4 * backfill.LINES_PER_REQUEST
    lines = [{"world_id": world, "as_of": day, "weights": {"A": 1.0}} for day in days(3)]
    lines[1]["weights"] = {"A": 2.0}
    start = datetime(2021, 1, 1, tzinfo=UTC)
    instants = (format_instant(start + timedelta(hours=hour)) for hour in range(count - 3))
    lines += [{"world_id": world, "as_of": when, "weights": {"A": 1.0}} for when in instants]
    source = ndjson(tmp_path / "w.ndjson", lines)
    state = tmp_path / "progress"
    words = ["backfill", str(source), *PRODUCER, "--state", str(state)]
    killed = subprocess.Popen(
        [sys.executable, "-c", _STOPS_AFTER_A_CHUNK, *words],
        cwd=Path(__file__).parents[3],
    )
    wait_until(lambda: state.exists() or killed.poll() is not None, within_sec=60)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    done = json.loads(state.read_text())["done"]
    assert done == backfill.LINES_PER_REQUEST

    result = riskhub(*words)
    assert result.stdout == (
        f"going on after {done} snapshots\n{count} snapshots: {count - 1} created, 1 refused\n"
    )
    refused = (tmp_path / "w.ndjson.refused.ndjson").read_text()
    assert refused.count("\n") == 1
    assert not state.exists()
    assert len(stored(hub, world)) == count - 1


_STOPS_AFTER_A_CHUNK = """
import sys, threading
from riskhub import cli
from riskhub.client import backfill

keep = backfill._keep
def keep_and_stop(*words):
    keep(*words)
    threading.Event().wait()
backfill._keep = keep_and_stop
sys.argv[0] = "riskhub"
cli.main()
"""


@pytest.mark.parametrize("left", ["", "[]", '{"key": "another", "done": 7}', '{"key": 1, "no": 2}'])
def test_progress_of_something_else_is_none(tmp_path: Path, left: str) -> None:
    state = tmp_path / "progress"
    state.write_text(left)
    assert backfill.read_progress(state, "mine") == backfill.Progress("mine")
