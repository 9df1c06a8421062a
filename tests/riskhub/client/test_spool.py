"""The spool: what can't be sent waits in order, survives a kill, and is sent at last."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import ACTOR, STAGE, WORLD, snapshot_document
from scripted import Producer, Script, Time, created, problem

from riskhub.blobs import open_blobs
from riskhub.blobs.settings import BlobSettings
from riskhub.client import (
    ContractViolation,
    Forbidden,
    HubRefused,
    HubUnavailable,
    SpoolUnusable,
    Status,
    Unauthorized,
    VersionConflict,
)
from riskhub.client.prepare import Prepared
from riskhub.client.spool import Entry, Spool
from riskhub.settings import Settings

Make = Callable[..., Producer]
DOWN = httpx.ConnectError("refused")


def publish(client: Producer, version: str) -> Any:
    return client.publish(snapshot_document(version=version), world_id=WORLD)


def waiting(spool: Path) -> list[str]:
    entries = [json.loads(path.read_text()) for path in sorted(spool.glob("*.json"))]
    return [entry["version"] for entry in entries]


def entry(version: str) -> Entry:
    return Entry(
        ACTOR, STAGE, Prepared(WORLD, version, "sha256:x", b'{"version":"%s"}' % version.encode())
    )


def test_without_a_spool_the_failure_is_the_producers(producer: Make) -> None:
    with pytest.raises(HubUnavailable):
        publish(producer(Script(DOWN)), "v1")


def test_without_a_spool_there_is_nothing_to_drain(producer: Make) -> None:
    assert producer(Script(DOWN)).drain().landed == 0


@pytest.mark.parametrize("failure", [DOWN, problem(503), problem(429)], ids=repr)
def test_what_cannot_be_sent_is_kept_with_who_said_it_but_never_the_token(
    producer: Make, spool: Path, failure: Any
) -> None:
    script = Script(failure)
    published = publish(producer(script, spool=spool, token="secret"), "v1")
    assert (published.status, published.body) == (Status.SPOOLED, None)
    (path,) = spool.glob("*.json")
    kept = json.loads(path.read_text())
    assert (kept["actor"], kept["stage"], kept["world_id"]) == (ACTOR, STAGE, WORLD)
    assert kept["body"].encode() == script.requests[0].content
    assert kept["digest"] == published.digest
    assert b"secret" not in path.read_bytes()
    assert (path.stat().st_mode & 0o777, spool.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_drain_sends_in_order_what_was_said_by_whoever_said_it(
    producer: Make, spool: Path
) -> None:
    away = producer(Script(DOWN), spool=spool)
    for number in range(12):
        publish(away, f"v{number}")
    script = Script(created)
    back = producer(script, spool=spool, actor="another", stage="live")
    drained = back.drain()
    assert (drained.landed, drained.rejected, drained.left) == (12, (), 0)
    assert script.versions == [f"v{number}" for number in range(12)]
    assert {request.headers["X-Actor"] for request in script.requests} == {ACTOR}
    assert waiting(spool) == []


def test_a_drain_stops_where_the_hub_goes_away(producer: Make, spool: Path) -> None:
    away = producer(Script(DOWN), spool=spool)
    for version in ("v1", "v2", "v3"):
        publish(away, version)
    drained = producer(Script(created, DOWN), spool=spool).drain()
    assert (drained.landed, drained.left) == (1, 2)
    assert waiting(spool) == ["v2", "v3"]


def test_while_others_wait_a_publish_goes_behind_them(
    producer: Make, spool: Path, time: Time
) -> None:
    script = Script(DOWN)
    client = producer(script, spool=spool)
    publish(client, "v1")
    slept, asked = list(time.slept), len(script.requests)
    assert publish(client, "v2").status is Status.SPOOLED
    assert (time.slept, len(script.requests)) == (slept, asked + 1)
    assert waiting(spool) == ["v1", "v2"]
    script.answers = [created]
    published = publish(client, "v3")
    assert published.status is Status.CREATED
    assert published.body["version"] == "v3"
    assert script.versions[-3:] == ["v1", "v2", "v3"]
    assert waiting(spool) == []


def test_a_publish_does_not_wait_for_a_long_queue(producer: Make, spool: Path, time: Time) -> None:
    away = producer(Script(DOWN), spool=spool)
    for number in range(5):
        publish(away, f"v{number}")

    def slowly(request: httpx.Request) -> httpx.Response:
        time.seconds += 30
        return created(request)

    assert publish(producer(Script(slowly), spool=spool), "own").status is Status.SPOOLED
    assert waiting(spool) == ["v2", "v3", "v4", "own"]


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_what_the_hub_refuses_for_good_is_put_aside_with_the_problem(
    producer: Make, spool: Path, status: int
) -> None:
    away = producer(Script(DOWN), spool=spool)
    for version in ("v1", "v2", "v3"):
        publish(away, version)
    drained = producer(Script(created, problem(status, "bad"), created), spool=spool).drain()
    assert (drained.landed, drained.left) == (2, 0)
    (rejected,) = drained.rejected
    assert rejected.problem["status"] == status
    assert json.loads(rejected.path.read_text())["version"] == "v2"
    beside = rejected.path.with_suffix(".problem.json")
    assert json.loads(beside.read_text()) == rejected.problem
    assert rejected.path.parent == spool / "rejected"


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Forbidden), (404, HubRefused)]
)
def test_what_would_meet_every_document_leaves_all_where_it_is(
    producer: Make, spool: Path, status: int, error: type[HubRefused]
) -> None:
    away = producer(Script(DOWN), spool=spool)
    publish(away, "v1")
    with pytest.raises(error, match=str(status)):
        producer(Script(problem(status)), spool=spool).drain()
    assert waiting(spool) == ["v1"]
    assert producer(Script(created), spool=spool).drain().landed == 1  # the lock was let go


def test_an_own_refusal_behind_others_is_raised(producer: Make, spool: Path) -> None:
    publish(producer(Script(DOWN), spool=spool), "v1")
    conflict = problem(409, stored="sha256:a", offered="sha256:b")
    with pytest.raises(VersionConflict):
        publish(producer(Script(created, conflict), spool=spool), "v2")
    assert waiting(spool) == []
    with pytest.raises(ContractViolation):
        producer(Script(created), spool=spool).publish({}, world_id=WORLD)
    publish(producer(Script(DOWN), spool=spool), "v1")
    with pytest.raises(Unauthorized):
        publish(producer(Script(problem(401)), spool=spool), "v2")
    assert waiting(spool) == ["v1", "v2"]


def test_a_blob_lost_while_its_snapshot_waited_is_put_back(
    producer: Make, spool: Path, tmp_path: Path
) -> None:
    blobs = open_blobs(Settings(home=tmp_path, blobs=BlobSettings(kind="file")))
    away = producer(Script(DOWN), spool=spool, blobs=blobs, inline_cov_threshold=1)
    covariance = {"BAC,BAC": 0.1, "JPM,JPM": 0.2}
    away.publish(snapshot_document(covariance=covariance), world_id=WORLD)
    (ref,) = blobs.refs()
    blobs.delete(ref)
    missing = problem(422, errors=[{"field": "covariance_ref", "message": "is missing: gone"}])
    back = producer(Script(missing, created), spool=spool, blobs=blobs, inline_cov_threshold=1)
    assert back.drain().landed == 1
    assert blobs.exists(ref)


def test_a_damaged_entry_is_put_aside(producer: Make, spool: Path) -> None:
    publish(producer(Script(DOWN), spool=spool), "v1")
    for number, text in enumerate(("", "[]", '{"actor": 1}')):
        (spool / f"{number}.json").write_text(text)
    drained = producer(Script(created), spool=spool).drain()
    assert (drained.landed, len(drained.rejected), drained.left) == (1, 3, 0)


def test_a_spool_that_cannot_be_written_is_told(producer: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnusable, match=r"refused.*file"):
        publish(producer(Script(DOWN), spool=tmp_path / "file" / "spool"), "v1")


def test_one_drains_and_the_others_leave_it_to_it(producer: Make, spool: Path) -> None:
    publish(producer(Script(DOWN), spool=spool), "v1")
    script = Script(created)
    with Spool(spool).draining() as ours:
        assert ours
        assert producer(script, spool=spool).drain().left == 1
        assert publish(producer(script, spool=spool), "v2").status is Status.SPOOLED
    assert script.requests == []
    assert producer(script, spool=spool).drain().landed == 2


def test_names_go_on_when_the_clock_goes_back(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Spool(spool)
    monkeypatch.setattr("riskhub.client.spool.time.time_ns", lambda: 2 * 10**18)
    queue.append(entry("v1"))
    monkeypatch.setattr("riskhub.client.spool.time.time_ns", lambda: 10**18)
    queue.append(entry("v2"))
    assert [queue.read(name).prepared.version for name in queue.names()] == ["v1", "v2"]


def test_what_a_dead_writer_left_is_no_entry_and_is_cleared(spool: Path) -> None:
    queue = Spool(spool)
    queue.append(entry("v1"))
    corpse = spool / ".00000000000000000001.json.tmp"
    corpse.write_text('{"half')
    assert len(queue.names()) == 1
    queue.append(entry("v2"))
    assert not corpse.exists()
    assert waiting(spool) == ["v1", "v2"]


_WRITER = """
import sys
from pathlib import Path
from riskhub.client.prepare import Prepared
from riskhub.client.spool import Entry, Spool
spool, who = Spool(Path(sys.argv[1])), sys.argv[2]
for number in range(100_000):
    spool.append(Entry("a", "s", Prepared("w", f"{who}-{number}", "d", b"{}")))
    print(number, flush=True)
"""


def test_writers_killed_at_work_lose_nothing_that_was_kept(spool: Path) -> None:
    writers = {
        who: subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(spool), who],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            env=os.environ,
        )
        for who in ("x", "y")
    }
    kept = {}
    for writer in writers.values():
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
    for who, writer in writers.items():
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        kept[who] = 20 + rest.count(b"\n")
    found = waiting(spool)
    for who, count in kept.items():
        mine = [version for version in found if version.startswith(who)]
        assert mine == [f"{who}-{number}" for number in range(len(mine))]
        assert count <= len(mine) <= count + 1
    Spool(spool).append(entry("after"))  # no lock is left behind
    assert waiting(spool)[-1] == "after"
