"""The hub against a model of itself, over whatever producers, clocks, caches and restarts may do.

Two processes share one database and one Redis. The model is a dictionary of rows; what it says is
what both must answer, also about every moment that has passed.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
from builders import Clock
from databases import migrate
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from stored import verdict

from riskhub.cache import Question, Shared
from riskhub.hub import Hub, Served
from riskhub.settings import Settings
from riskhub.store import Filter, create_engine, open_store
from riskhub.store.engine import writing
from riskhub.store.landing import Landing, Outcome
from riskhub.store.reading import Lookup
from riskhub.store.tables import metadata
from riskhub.telemetry import Telemetry

WORLDS = ["equities", "fx"]
STAGES = ["paper", "live"]
ACTORS = ["optimizer", "desk"]
QUESTIONS = [
    Question(world, stage, actor)
    for world in WORLDS
    for stage, actor in [(None, None), ("paper", None), ("live", "desk"), (None, "optimizer")]
]
HOUR = timedelta(hours=1)
DAYS = (date(2026, 1, 30), date(2026, 2, 2))

worlds = st.sampled_from(WORLDS)
stages = st.sampled_from(STAGES)
actors = st.sampled_from(ACTORS)
# Few versions, instants and contents, so that they meet often.
versions = st.integers(1, 6).map(lambda number: f"v{number}")
instants = st.integers(0, 8).map(lambda hour: datetime(2026, 1, 31, 12, tzinfo=UTC) + hour * HOUR)
offsets = st.sampled_from([0, 5, -8])
processes = st.integers(0, 1)


@dataclass(frozen=True)
class Offer:
    """What a producer posts."""

    world: str
    stage: str
    actor: str
    document: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.world, self.document["version"]

    def but(self, **fields: Any) -> "Offer":
        return replace(self, document=self.document | fields)


class Row:
    """What the model knows of a snapshot that landed; `place` counts landings."""

    def __init__(self, offer: Offer, landing: Landing, place: int) -> None:
        self.offer = offer
        self.body = landing.body
        self.place = place
        self.as_of = datetime.fromisoformat(offer.document["as_of"])
        self.received_at = datetime.fromisoformat(json.loads(landing.body)["created_at"])
        self.expires_at = self.received_at + timedelta(seconds=offer.document["ttl_sec"])
        self.verdicts: list[tuple[datetime, bool]] = []

    @property
    def order(self) -> tuple[datetime, datetime, int]:
        return self.as_of, self.received_at, self.place

    def may_be_latest(self, moment: datetime) -> bool:
        """Whether the last verdict by then was not that it is rejected."""
        by_then = [accepted for given, accepted in self.verdicts if given <= moment]
        return not by_then or by_then[-1]


@dataclass
class Said:
    """What the hub listed at a moment, and what of it could be the latest."""

    moment: datetime
    world: str
    which: Filter
    bodies: list[str]
    served: list[str]


class HubMachine(RuleBasedStateMachine):
    """Posts, retries, conflicts, late arrivals and verdicts, while time passes and all restarts."""

    posted = Bundle("posted")

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.clock = Clock(datetime(2026, 1, 31, 21, tzinfo=UTC))
        self.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.kept_values: dict[bytes, bytes] = {}
        self.hubs: list[Hub] = []
        self.rows: dict[tuple[str, str], Row] = {}
        self.landed = 0
        self.newest: dict[tuple[str, str], datetime | None] = {}
        self.said: list[Said] = []

    @initialize()
    def start(self) -> None:
        self.hubs = [self.new_process() for _ in range(2)]
        with writing(self.hubs[0].store.engine) as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())

    def new_process(self) -> Hub:
        telemetry = Telemetry()
        shared = Shared(self.redis, telemetry)
        return Hub(
            open_store(self.url), Settings(), self.clock, shared_cache=shared, telemetry=telemetry
        )

    # -- producers --------------------------------------------------------------------------------

    def post(self, process: int, *offers: Offer) -> None:
        """Each landing is what the model says of it; the model knows of it from now on."""
        hub = self.hubs[process]
        snapshots = [
            hub.accept(
                json.dumps(offer.document).encode(),
                world_id=offer.world,
                actor=offer.actor,
                stage=offer.stage,
            )
            for offer in offers
        ]
        for offer, landing in zip(offers, hub.land(snapshots), strict=True):
            self.expect(offer, landing)

    def expect(self, offer: Offer, landing: Landing) -> None:
        first = self.rows.get(offer.key)
        if first is not None:
            same = first.offer == offer
            assert landing.outcome is (Outcome.DUPLICATE if same else Outcome.CONFLICT)
            assert landing.body == first.body
            return
        assert landing.outcome is Outcome.CREATED
        self.landed += 1
        row = self.rows[offer.key] = Row(offer, landing, self.landed)
        key = (offer.world, offer.stage)
        self.newest[key] = max(row.as_of, self.newest.get(key) or row.as_of)

    @rule(
        target=posted,
        process=processes,
        world=worlds,
        stage=stages,
        actor=actors,
        version=versions,
        as_of=instants,
        offset=offsets,
        share=st.sampled_from([0.25, 0.5]),
        ttl_sec=st.sampled_from([1, 900, 7200]),
    )
    def post_a_snapshot(
        self,
        process: int,
        world: str,
        stage: str,
        actor: str,
        version: str,
        as_of: datetime,
        offset: int,
        share: float,
        ttl_sec: int,
    ) -> Offer:
        document = {
            "as_of": (as_of.replace(tzinfo=None) + offset * HOUR).isoformat() + f"{offset:+03}:00",
            "version": version,
            "weights": {"BAC": share, "JPM": 1 - share},
            "ttl_sec": ttl_sec,
        }
        offer = Offer(world, stage, actor, document)
        self.post(process, offer)
        return offer

    @rule(process=processes, offer=posted)
    def retry(self, process: int, offer: Offer) -> None:
        self.post(process, offer)

    @rule(process=processes, offer=posted, stage=stages)
    def post_the_same_version_with_other_content(
        self, process: int, offer: Offer, stage: str
    ) -> None:
        self.post(process, replace(offer, stage=stage).but(weights={"BAC": 1}))

    @rule(process=processes, batch=st.lists(posted, max_size=4), newest=instants)
    def post_a_batch(self, process: int, batch: list[Offer], newest: datetime) -> None:
        later = [offer.but(as_of=newest.isoformat(), version="batch") for offer in batch]
        self.post(process, *batch, *later)

    # -- verdicts ---------------------------------------------------------------------------------

    @rule(process=processes, offers=st.lists(posted, max_size=3), accepted=st.booleans())
    def judge(self, process: int, offers: list[Offer], accepted: bool) -> None:
        store, now = self.hubs[process].store, self.clock.now
        landed = {(row.world_id, row.version): row for row in store.landed_on(*DAYS)}
        keys = [key for key in dict.fromkeys(offer.key for offer in offers) if key in self.rows]
        verdicts = [
            verdict(
                landed[key].position,
                day=landed[key].day,
                accepted=accepted,
                world_id=landed[key].world_id,
                version=landed[key].version,
                as_of=landed[key].as_of,
                stage=landed[key].stage,
            )
            for key in keys
        ]
        days = sorted({landed[key].day for key in keys})
        store.write_verdicts(verdicts, days, now=now, replace=False)
        moved = set()
        for key in keys:
            row = self.rows[key]
            if row.may_be_latest(now) is not accepted:
                moved.add((row.offer.world, row.offer.stage))
            row.verdicts.append((now, accepted))
        for world, stage in moved:
            self.newest[world, stage] = max(
                (row.as_of for row in self.news(world, stage)), default=None
            )

    def news(self, world: str, stage: str) -> list[Row]:
        """What counts as news of a world and stage: all but what is in the quarantine."""
        return [
            row
            for row in self.rows.values()
            if (row.offer.world, row.offer.stage) == (world, stage)
            and row.may_be_latest(self.clock.now)
        ]

    # -- time, restarts, retention ----------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1, 60, 900, 7200]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(process=processes)
    def restart(self, process: int) -> None:
        self.hubs[process].store.close()
        self.hubs[process] = self.new_process()

    @rule(process=processes, stage=stages, kept_sec=st.sampled_from([0, 60, 3600]))
    def retention_removes(self, process: int, stage: str, kept_sec: int) -> None:
        now = self.clock.now
        before = now - timedelta(seconds=kept_sec)
        gone = {
            key: row
            for key, row in self.rows.items()
            if row.offer.stage == stage and row.expires_at <= now and row.received_at < before
        }
        removed = self.hubs[process].store.remove_snapshots({stage: before}, now)
        assert removed == len(gone)
        for key in gone:
            del self.rows[key]
        forgotten = {row.body for row in gone.values()}
        for said in self.said:
            said.bodies = [body for body in said.bodies if body not in forgotten]
            said.served = [body for body in said.served if body not in forgotten]

    # -- what becomes of the cache ----------------------------------------------------------------

    @rule()
    def redis_is_flushed(self) -> None:
        self.redis.flushall()

    @rule()
    def redis_is_copied(self) -> None:
        self.kept_values |= self.values()

    @rule()
    def redis_is_restored(self) -> None:
        if self.kept_values:
            self.redis.mset(self.kept_values)

    @rule()
    def redis_mixes_its_keys_up(self) -> None:
        held = self.values()
        values = list(held.values())
        if held:
            self.redis.mset(dict(zip(held, values[1:] + values[:1], strict=True)))

    @rule(noise=st.binary(max_size=40), cut=st.integers(0, 60))
    def redis_garbles_its_values(self, noise: bytes, cut: int) -> None:
        for key, value in self.values().items():
            self.redis.set(key, value[:cut] + noise)

    def values(self) -> dict[bytes, bytes]:
        return {key: self.redis.get(key) for key in self.redis.keys("*")}

    # -- what is said now, and was said then ------------------------------------------------------

    @rule(
        world=worlds,
        stage=st.none() | stages,
        actor=st.none() | actors,
        up_to=st.none() | instants,
        include_expired=st.booleans(),
    )
    def remember_what_is_said(self, up_to: datetime | None, world: str, **which: Any) -> None:
        filter_ = Filter(up_to=up_to, **which)
        self.said.append(
            Said(
                self.clock.now,
                world,
                filter_,
                self.listed(world, filter_),
                self.served(world, filter_),
            )
        )
        # What is received at this very instant, but later, would have been known then.
        self.clock.advance(0.001)

    def listed(self, world: str, which: Filter, process: int = 0) -> list[str]:
        """The whole list, by pages of two."""
        walked, cursor = self.hubs[process].page(world, which, limit=2)
        while cursor:
            bodies, cursor = self.hubs[process].page(world, which, limit=2, cursor=cursor)
            walked += bodies
        return walked

    def model(self, world: str, which: Filter) -> list[str]:
        """What the hub should list: newest `as_of` first, then the later receipt."""
        chosen = [
            row
            for row in self.rows.values()
            if row.offer.world == world
            and which.stage in (None, row.offer.stage)
            and which.actor in (None, row.offer.actor)
            and (which.up_to is None or row.as_of <= which.up_to)
            and (which.include_expired or row.expires_at > self.clock.now)
        ]
        chosen.sort(key=lambda row: row.order, reverse=True)
        return [row.body for row in chosen]

    def served(self, world: str, which: Filter) -> list[str]:
        """What of it may be the latest: the first of these is."""
        held = {row.body for row in self.rows.values() if not row.may_be_latest(self.clock.now)}
        return [body for body in self.model(world, which) if body not in held]

    @invariant()
    def latest_is_the_greatest_that_is_alive(self) -> None:
        expected = [
            next(iter(self.served(q.world_id, Filter(q.stage, q.actor))), None) for q in QUESTIONS
        ]
        for hub in self.hubs:
            assert bodies_of(hub.latest_of_many(QUESTIONS)) == expected

    @invariant()
    def pages_walk_the_list_in_order(self) -> None:
        for world in WORLDS:
            for which in (Filter(), Filter(include_expired=True), Filter("paper", "desk")):
                assert self.listed(world, which, process=1) == self.model(world, which)

    @invariant()
    def a_version_gives_its_first_body_until_it_is_removed(self) -> None:
        keys = [(world, f"v{number}") for world in WORLDS for number in range(1, 7)]
        rows = [self.rows.get(key) for key in keys]
        for which in (Filter(include_expired=True), Filter()):
            found = bodies_of(self.hubs[0].look_up_many([Lookup(*key, which) for key in keys]))
            for row, body in zip(rows, found, strict=True):
                served = row is not None and (
                    which.include_expired or row.expires_at > self.clock.now
                )
                assert body == (row.body if row is not None and served else None)

    @invariant()
    def as_of_gives_the_newest_up_to_then(self) -> None:
        asked = [
            Lookup(row.offer.world, None, Filter(include_expired=expired, up_to=row.as_of))
            for row in self.rows.values()
            for expired in (True, False)
        ]
        expected = [next(iter(self.served(one.world_id, one.which)), None) for one in asked]
        assert bodies_of(self.hubs[1].look_up_many(asked)) == expected

    @invariant()
    def what_was_said_then_is_what_is_said_of_then(self) -> None:
        for said in self.said[-6:]:
            then = replace(said.which, known_at=said.moment)
            assert self.listed(said.world, then) == said.bodies
            first = next(iter(said.served), None)
            assert self.hubs[1].lookup(Lookup(said.world, None, then)) == first
            assert self.hubs[1].latest(said.world, then) == first

    @invariant()
    def freshness_knows_the_greatest_instant_that_landed_and_was_not_rejected(self) -> None:
        found = {each[:2]: each.newest_as_of for each in self.hubs[0].store.newest_per_world()}
        assert found == self.newest

    @invariant()
    def freshness_knows_whether_anything_is_served(self) -> None:
        now = self.clock.now
        for each in self.hubs[1].store.newest_per_world():
            alive = any(row.expires_at > now for row in self.news(each.world_id, each.stage))
            assert (each.alive_until is not None and each.alive_until > now) == alive

    @invariant()
    def the_quarantine_is_what_was_rejected_last(self) -> None:
        found = {
            (row["world_id"], row["version"])
            for row in self.hubs[1].store.quarantined(limit=100).rows
        }
        now = self.clock.now
        assert found == {key for key, row in self.rows.items() if not row.may_be_latest(now)}

    @invariant()
    def each_row_stands_at_one_position_in_the_order_of_landing(self) -> None:
        """What a consumer of events sees that remembers a position: each row, once, in order."""
        landed = self.hubs[0].store.landed_on(*DAYS)
        rows = sorted(self.rows.values(), key=lambda row: row.place)
        assert [row.body for row in landed] == [row.body for row in rows]
        positions = [row.position for row in landed]
        assert positions == sorted(set(positions))

    def teardown(self) -> None:
        for hub in self.hubs:
            hub.store.close()
        self.redis.close()


def bodies_of(found: list[Served | None]) -> list[str | None]:
    assert all(
        datetime.fromisoformat(json.loads(one.body)["as_of"]) == one.as_of for one in found if one
    )
    return [one.body if one else None for one in found]


def holds_on(url: str, examples: int) -> None:
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()
    run_state_machine_as_test(
        lambda: HubMachine(url), settings=settings(max_examples=examples, stateful_step_count=25)
    )


def test_the_hub_is_its_model_on_sqlite(tmp_path: Path) -> None:
    holds_on(f"sqlite:///{tmp_path / 'hub.db'}", examples=25)


def test_the_hub_is_its_model_on_postgres(postgres_url: str) -> None:
    holds_on(postgres_url, examples=8)
