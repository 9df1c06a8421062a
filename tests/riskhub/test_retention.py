"""What the hub forgets: by policy, never what is served or referred to, and through outages."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import ACTOR, STAGE, WORLD, Clock, raw_document, wait_until
from databases import migrate
from sqlalchemy import event

from riskhub import retention
from riskhub.blobs import BlobSettings, BlobStore, open_blobs
from riskhub.errors import BlobsUnavailable, BlobUnusable
from riskhub.hub import Hub
from riskhub.retention import Figures, apply, plan, received_before
from riskhub.settings import RetentionSettings, Settings
from riskhub.snapshot import Snapshot
from riskhub.store import Store, create_engine
from riskhub.store.landing import Landing, Outcome
from riskhub.store.reading import Filter
from riskhub.store.retention import Removable
from riskhub.strict_json import parse_json

DAY = 86_400
HOUR = 3_600
KEEP = RetentionSettings()
AT_ONCE = RetentionSettings(default_days=0)


@dataclass
class Place:
    """A hub that offloads, and what retention works on."""

    settings: Settings
    store: Store
    blobs: BlobStore
    clock: Clock

    @property
    def hub(self) -> Hub:
        return Hub(self.store, self.settings, self.clock, blobs=self.blobs)

    def accept(self, version: str, *, stage: str = STAGE, **fields: Any) -> Snapshot:
        """What a snapshot of one minute to live is when it arrives now."""
        fields = {"as_of": self.clock().isoformat(), "ttl_sec": 60} | fields
        raw = raw_document(version=version, **fields)
        return self.hub.accept(raw, world_id=WORLD, actor=ACTOR, stage=stage)

    def land(self, version: str, *, stage: str = STAGE, **fields: Any) -> Landing:
        (landing,) = self.hub.land([self.accept(version, stage=stage, **fields)])
        return landing

    def apply(self, policy: RetentionSettings = KEEP, **given: Any) -> Figures:
        return apply(self.store, given.pop("blobs", self.blobs), policy, self.clock(), **given)

    def plan(self, policy: RetentionSettings = KEEP) -> Figures:
        return plan(self.store, self.blobs, policy, self.clock())

    def versions(self) -> set[str]:
        page = self.store.newest_first(
            WORLD, Filter(include_expired=True), now=self.clock(), limit=1_000
        )
        return {str(parse_json(body.encode())["version"]) for body in page.bodies}

    def kept_blobs(self) -> set[str]:
        return set(self.blobs.refs())


def large(number: float) -> dict[str, Any]:
    """A field that is offloaded, another one for each number."""
    return {"stress": {"crash": {"loss": number, "n": 1.0}}}


def counts(figures: Figures) -> tuple[dict[str, int], int, int]:
    by_stage = {stage.stage: stage.count for stage in figures.snapshots}
    return by_stage, figures.blobs_condemned, figures.blobs_removed


@pytest.fixture(params=["file, SQLite", "Redis, Postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "file, SQLite":
        url = f"sqlite:///{tmp_path / 'hub.db'}"
        kind = BlobSettings(kind="file", directory=tmp_path / "blobs")
    else:
        url = request.getfixturevalue("postgres_url")
        kind = BlobSettings(kind="redis", redis_url=request.getfixturevalue("redis_url"))
    store = Store(create_engine(url))
    migrate(store.engine)
    settings = Settings(blobs=kind, home=tmp_path, inline_cov_threshold=1)
    blobs = open_blobs(settings)
    assert blobs is not None
    yield Place(settings, store, blobs, Clock())
    store.close()


class Failing:
    """A blob store that goes down before, or right after, some call of a method."""

    def __init__(self, blobs: BlobStore, method: str, *, at: int, done: bool = False) -> None:
        self.blobs, self.method, self.at, self.done = blobs, method, at, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self.blobs, name)

    def delete(self, ref: str) -> None:
        self._maybe_fail("delete", before=True)
        self.blobs.delete(ref)
        self._maybe_fail("delete", before=False)

    def refs(self) -> Iterator[str]:
        for ref in self.blobs.refs():
            self._maybe_fail("refs", before=True)
            yield ref

    def _maybe_fail(self, method: str, *, before: bool) -> None:
        if method == self.method and before is not self.done:
            self.at -= 1
            if self.at == 0:
                raise BlobsUnavailable("the blob store went down")


# -- the policy -----------------------------------------------------------------------------------


def test_by_default_everything_is_kept_for_ever() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert received_before(RetentionSettings(), ["paper", "live"], now) == {}
    assert not RetentionSettings().removes_snapshots


def test_a_stage_has_days_of_its_own_or_the_default_or_for_ever() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    policy = RetentionSettings(days={"backtest": 3, "live": None, "unheard": 1}, default_days=7)

    assert received_before(policy, ["backtest", "live", "paper"], now) == {
        "backtest": datetime(2026, 1, 28, tzinfo=UTC),
        "paper": datetime(2026, 1, 24, tzinfo=UTC),
    }


@pytest.mark.parametrize(
    ("policy", "removes"),
    [
        ({"default_days": 0}, True),
        ({"days": {"paper": 1}}, True),
        ({"days": {"paper": None}}, False),
    ],
)
def test_a_policy_removes_snapshots_when_any_stage_has_days(
    policy: dict[str, Any], removes: bool
) -> None:
    assert RetentionSettings(**policy).removes_snapshots is removes


@pytest.mark.parametrize(
    "wrong",
    [{"default_days": -1}, {"days": {"paper": -1}}, {"default_days": 0.5}, {"blob_grace_hours": 0}],
)
def test_a_policy_that_could_not_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        RetentionSettings(**wrong)


# -- snapshots ------------------------------------------------------------------------------------


def test_what_expired_and_was_received_long_enough_ago_goes(place: Place) -> None:
    place.land("old")
    place.clock.advance(DAY)
    place.land("young")
    place.clock.advance(7 * DAY - HOUR)

    figures = place.apply(RetentionSettings(default_days=7))

    assert counts(figures) == ({STAGE: 1}, 0, 0)
    assert place.versions() == {"young"}


def test_what_is_still_served_stays_whatever_the_policy(place: Place) -> None:
    place.land("alive", ttl_sec=DAY)
    place.land("expired")
    place.clock.advance(HOUR)

    place.apply(AT_ONCE)

    assert place.versions() == {"alive"}
    assert place.hub.latest(WORLD) is not None


def test_each_stage_has_its_own_policy_and_figures(place: Place) -> None:
    for number in range(3):
        place.land(f"b{number}", stage="backtest", as_of=f"2020-01-0{number + 1}T00:00:00Z")
    place.land("p", stage="paper")
    place.land("l", stage="live")
    place.clock.advance(2 * DAY)

    figures = place.apply(RetentionSettings(days={"backtest": 1, "paper": 7}))

    first, last = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC)
    assert figures.snapshots == (Removable("backtest", 3, first, last),)
    assert figures.snapshots_removed == 3
    assert place.versions() == {"p", "l"}


def test_without_a_blob_store_snapshots_alone_are_looked_at(place: Place) -> None:
    place.land("v1", **large(1))
    place.clock.advance(2 * DAY)

    figures = place.apply(AT_ONCE, blobs=None)

    assert counts(figures) == ({STAGE: 1}, 0, 0)
    assert len(place.kept_blobs()) == 1


def test_a_removal_and_the_landing_of_the_same_version_wait_for_each_other(
    postgres_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A landing that meets a stored version reads it next: it must still be there."""
    settings = Settings(home=tmp_path, blobs=BlobSettings(kind="file"))
    blobs = open_blobs(settings)
    assert blobs is not None
    request.addfinalizer((store := Store(create_engine(postgres_url))).close)
    migrate(store.engine)
    place = Place(settings, store, blobs, Clock())
    place.land("v1")
    again = place.accept("v1")
    place.clock.advance(DAY)
    removed: list[Figures] = []
    remover = threading.Thread(target=lambda: removed.append(place.apply(AT_ONCE)))

    def waits() -> bool:
        with store.engine.connect() as connection:
            found = connection.execute(
                sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            )
            return bool(found.scalar())

    def begin_removal(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO snapshots" in statement and not remover.is_alive():
            remover.start()
            wait_until(lambda: bool(removed) or waits())

    event.listen(store.engine, "after_cursor_execute", begin_removal)
    (landing,) = store.land([again])
    remover.join()

    assert landing.outcome is Outcome.DUPLICATE
    assert counts(removed[0]) == ({STAGE: 1}, 0, 0)


# -- blobs ----------------------------------------------------------------------------------------


def test_a_blob_goes_only_after_its_grace_which_begins_when_it_is_seen(place: Place) -> None:
    place.blobs.put(b"{}")
    place.clock.advance(30 * DAY)

    assert counts(place.apply()) == ({}, 1, 0)
    place.clock.advance(24 * HOUR - 1)
    assert counts(place.apply()) == ({}, 0, 0)
    assert len(place.kept_blobs()) == 1
    place.clock.advance(1)
    assert counts(place.apply()) == ({}, 0, 1)

    assert place.kept_blobs() == set()
    assert counts(place.apply()) == ({}, 0, 0)


def test_a_blob_is_kept_as_long_as_one_snapshot_refers_to_it(place: Place) -> None:
    place.land("first", stage="backtest", **large(1))
    place.land("second", stage="live", **large(1))
    place.clock.advance(DAY)

    def age_and_apply(**policy: Any) -> set[str]:
        place.apply(RetentionSettings(**policy))
        place.clock.advance(2 * DAY)
        place.apply(RetentionSettings(**policy))
        return place.versions()

    assert age_and_apply(days={"backtest": 0}) == {"second"}
    assert len(place.kept_blobs()) == 1
    assert age_and_apply(default_days=0) == set()
    assert place.kept_blobs() == set()


def test_a_blob_that_is_referred_to_within_its_grace_is_pardoned(place: Place) -> None:
    (ref,) = place.accept("v1", **large(1)).refs  # put, and never landed
    place.apply()
    place.clock.advance(23 * HOUR)

    place.land("v2", **large(1))
    place.clock.advance(DAY)
    place.apply()

    assert place.kept_blobs() == {ref}


def test_a_blob_stays_for_a_snapshot_that_is_accepted_and_has_not_landed(place: Place) -> None:
    place.accept("v1", **large(1))
    place.apply()
    place.clock.advance(25 * HOUR)
    accepted = place.accept("v2", **large(1))

    place.apply()
    place.hub.land([accepted])

    assert place.kept_blobs() == set(accepted.refs)
    assert place.hub.expand(accepted.body)


def test_a_blob_that_somebody_referred_to_without_asking_is_kept(place: Place) -> None:
    accepted = place.accept("v1", **large(1))
    place.apply()
    place.hub.land([accepted])
    place.clock.advance(2 * DAY)

    assert counts(place.plan()) == ({}, 0, 0)
    assert counts(place.apply()) == ({}, 0, 0)

    assert place.kept_blobs() == set(accepted.refs)
    assert place.store.condemned_blobs(place.clock()) == []


def test_the_grace_is_a_setting(place: Place) -> None:
    place.blobs.put(b"{}")
    place.apply()
    place.clock.advance(HOUR)

    assert place.apply(RetentionSettings(blob_grace_hours=1)).blobs_removed == 1


def test_what_a_store_configured_before_has_is_left_alone(place: Place, tmp_path: Path) -> None:
    old = place.blobs.put(b"{}")
    place.apply()
    place.clock.advance(2 * DAY)
    elsewhere = BlobSettings(kind="file", directory=tmp_path / "elsewhere")
    other = open_blobs(Settings(blobs=elsewhere))

    assert counts(place.apply(blobs=other)) == ({}, 0, 0)

    assert place.kept_blobs() == {old}
    assert place.apply().blobs_removed == 1


def test_every_blob_is_looked_at_however_many_a_chunk_holds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 2)
    for number in range(5):
        place.blobs.put(b"%d" % number)
    place.land("v1", **large(1))

    assert counts(place.apply()) == ({}, 5, 0)
    place.clock.advance(2 * DAY)
    assert counts(place.plan()) == ({}, 0, 5)
    assert counts(place.apply()) == ({}, 0, 5)
    assert len(place.kept_blobs()) == 1


def test_blobs_are_listed_as_they_are_looked_at_not_all_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 2)
    for number in range(5):
        place.blobs.put(b"%d" % number)
    at_most_ahead = 0
    listed = looked_at = 0

    class Watched(Failing):
        def refs(self) -> Iterator[str]:
            nonlocal listed, at_most_ahead
            for ref in super().refs():
                listed += 1
                at_most_ahead = max(at_most_ahead, listed - looked_at)
                yield ref

    def progress(what: str, more: int, _total: int | None) -> None:
        nonlocal looked_at
        looked_at += more if what == "blobs looked at" else 0

    place.apply(blobs=Watched(place.blobs, "", at=0), progress=progress)

    assert (listed, looked_at, at_most_ahead) == (5, 5, 2)


# -- the plan -------------------------------------------------------------------------------------


def test_the_plan_is_what_then_happens_and_changes_nothing(place: Place) -> None:
    policy = RetentionSettings(days={"backtest": 1})
    place.blobs.put(b"due")
    place.apply()
    place.land("gone", stage="backtest", **large(1))
    place.land("gone too", stage="backtest", **large(2))
    place.land("keeps the second blob", stage="live", **large(2))
    place.blobs.put(b"fresh")
    place.clock.advance(3 * DAY)
    versions, blobs = place.versions(), place.kept_blobs()

    planned = place.plan(policy)

    assert (place.versions(), place.kept_blobs()) == (versions, blobs)
    assert counts(planned) == ({"backtest": 2}, 2, 1)
    assert place.plan(policy) == planned
    assert place.apply(policy) == planned
    assert counts(place.plan(policy)) == ({}, 0, 0)


def test_progress_is_told_in_full(place: Place) -> None:
    for number in range(3):
        place.land(f"v{number}", stage=f"s{number % 2}", **large(number))
    place.clock.advance(DAY)
    told: list[tuple[str, int, int | None]] = []

    def progress(*step: Any) -> None:
        told.append(step)

    place.apply(AT_ONCE, progress=progress)
    place.clock.advance(2 * DAY)
    place.apply(AT_ONCE, progress=progress)

    sums = {what: sum(more for each, more, _ in told if each == what) for what, _, _ in told}
    assert sums == {"snapshots": 3, "blobs looked at": 6, "blobs removed": 3}
    assert {total for what, _, total in told if what == "snapshots"} == {3}


# -- outages --------------------------------------------------------------------------------------


def test_a_store_that_goes_down_among_removals_loses_nothing_and_the_next_run_goes_on(
    place: Place,
) -> None:
    for number in range(3):
        place.blobs.put(b"%d" % number)
    place.apply()
    place.clock.advance(2 * DAY)

    with pytest.raises(BlobsUnavailable, match="went down"):
        place.apply(blobs=Failing(place.blobs, "delete", at=2))

    assert len(place.kept_blobs()) == 2
    assert place.plan().blobs_removed == 2
    assert counts(place.apply()) == ({}, 0, 2)
    assert place.kept_blobs() == set()


def test_a_store_that_goes_down_while_it_is_listed_leaves_the_snapshots_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 1)
    place.land("v1", **large(1))
    place.land("v2", **large(2))
    place.clock.advance(DAY)

    with pytest.raises(BlobsUnavailable, match="went down"):
        place.apply(AT_ONCE, blobs=Failing(place.blobs, "refs", at=2))

    assert place.versions() == set()
    assert counts(place.apply(AT_ONCE)) == ({}, 1, 0)


def test_a_removal_whose_answer_was_lost_is_done_again_and_takes_nothing_new(place: Place) -> None:
    (ref,) = place.accept("v1", **large(1)).refs
    place.apply()
    place.clock.advance(2 * DAY)
    with pytest.raises(BlobsUnavailable):
        place.apply(blobs=Failing(place.blobs, "delete", at=1, done=True))
    assert place.kept_blobs() == set()

    landing = place.land("v2", **large(1))  # puts it again
    place.apply()

    assert place.kept_blobs() == {ref}
    assert place.hub.expand(landing.body)


def test_producers_may_post_what_is_just_being_removed(place: Place) -> None:
    """Each ends whole, whoever comes first: a landed snapshot has its blobs."""
    for number in range(24):
        place.accept(f"abandoned {number}", **large(number))
    place.apply()
    place.clock.advance(2 * DAY)
    gate = threading.Barrier(4)

    def post(first: int) -> list[str]:
        gate.wait()
        return [place.land(f"v{n}", **large(n)).body for n in range(first, 24, 2)]

    def forget() -> list[str]:
        gate.wait()
        place.apply()
        return []

    tasks: list[Callable[[], list[str]]] = [lambda: post(0), lambda: post(1), forget, forget]
    with ThreadPoolExecutor(len(tasks)) as pool:
        bodies = [body for posted in pool.map(lambda task: task(), tasks) for body in posted]

    assert len(bodies) == 24
    for body in bodies:
        try:
            place.hub.expand(body)
        except BlobUnusable as error:
            pytest.fail(str(error))
    assert len(place.kept_blobs()) == 24


def test_days_count_from_the_receipt_not_from_what_the_snapshot_is_about(place: Place) -> None:
    place.land("about the past", as_of=(place.clock() - timedelta(days=365)).isoformat())
    place.clock.advance(DAY)

    assert counts(place.apply(RetentionSettings(default_days=2))) == ({}, 0, 0)
    assert place.versions() == {"about the past"}
