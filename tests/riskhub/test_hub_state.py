"""The hub against a model of itself, over whatever producers, clocks and restarts may do."""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import ACTOR, Clock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Filter, create_engine, migrate, open_store
from riskhub.store.landing import Landing, Outcome
from riskhub.store.reading import Lookup

WORLDS = ["equities", "fx"]
STAGES = ["paper", "live"]
EVERYTHING = Filter(include_expired=True)

worlds = st.sampled_from(WORLDS)
stages = st.sampled_from(STAGES)
# Few versions, instants and contents, so that they meet often.
versions = st.integers(1, 6).map(lambda number: f"v{number}")
instants = st.integers(0, 8).map(lambda hour: datetime(2026, 1, 31, 12, tzinfo=UTC) + hour * HOUR)
offsets = st.sampled_from([0, 5, -8])
HOUR = timedelta(hours=1)


class Row:
    """What the model knows of a snapshot that landed; `receipt` counts landings."""

    def __init__(self, document: dict[str, Any], stage: str, landing: Landing, receipt: int):
        self.document = document
        self.stage = stage
        self.body = landing.body
        self.as_of = datetime.fromisoformat(document["as_of"])
        self.receipt = receipt
        self.expires_at = datetime.fromisoformat(json.loads(landing.body)["created_at"])
        self.expires_at += timedelta(seconds=document["ttl_sec"])


class HubMachine(RuleBasedStateMachine):
    """Posts, retries, conflicts and late arrivals, while time passes and the hub restarts."""

    posted = Bundle("posted")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{Path(self.directory.name) / 'hub.db'}"
        self.clock = Clock(datetime(2026, 1, 31, 21, tzinfo=UTC))
        self.landed: dict[tuple[str, str], Row] = {}

    @initialize()
    def create(self) -> None:
        engine = create_engine(self.url)
        migrate(engine)
        engine.dispose()
        self.start()

    def start(self) -> None:
        self.hub = Hub(open_store(self.url), Settings(), self.clock)

    def post(self, world: str, stage: str, document: dict[str, Any]) -> Landing:
        raw = json.dumps(document).encode()
        snapshot = self.hub.accept(raw, world_id=world, actor=ACTOR, stage=stage)
        (landing,) = self.hub.land([snapshot])
        return landing

    def expect(self, world: str, stage: str, document: dict[str, Any], landing: Landing) -> None:
        """The landing is what the model says of it, and the model knows of it from now on."""
        first = self.landed.get((world, document["version"]))
        if first is None:
            assert landing.outcome is Outcome.CREATED
            row = Row(document, stage, landing, receipt=len(self.landed))
            self.landed[world, document["version"]] = row
            return
        same = (first.document, first.stage) == (document, stage)
        assert landing.outcome is (Outcome.DUPLICATE if same else Outcome.CONFLICT)
        assert landing.body == first.body

    @rule(
        target=posted,
        world=worlds,
        stage=stages,
        version=versions,
        as_of=instants,
        offset=offsets,
        share=st.sampled_from([0.25, 0.5]),
        ttl_sec=st.sampled_from([1, 900, 7200]),
    )
    def post_a_snapshot(
        self,
        world: str,
        stage: str,
        version: str,
        as_of: datetime,
        offset: int,
        share: float,
        ttl_sec: int,
    ) -> Any:
        document = {
            "as_of": (as_of.replace(tzinfo=None) + offset * HOUR).isoformat() + f"{offset:+03}:00",
            "version": version,
            "weights": {"BAC": share, "JPM": 1 - share},
            "ttl_sec": ttl_sec,
        }
        self.expect(world, stage, document, self.post(world, stage, document))
        return multiple((world, stage, document))

    @rule(before=posted)
    def retry(self, before: tuple[str, str, dict[str, Any]]) -> None:
        world, stage, document = before
        self.expect(world, stage, document, self.post(world, stage, document))

    @rule(before=posted, stage=stages)
    def post_the_same_version_with_other_content(
        self, before: tuple[str, str, dict[str, Any]], stage: str
    ) -> None:
        world, _, document = before
        document = document | {"weights": {"BAC": 1}}
        self.expect(world, stage, document, self.post(world, stage, document))

    @rule(batch=st.lists(posted, max_size=4), newest=instants)
    def post_a_batch(self, batch: list[tuple[str, str, dict[str, Any]]], newest: datetime) -> None:
        later = [(w, s, d | {"as_of": newest.isoformat()}) for w, s, d in batch]
        offered = batch + [(w, s, d | {"version": "batch"}) for w, s, d in later]
        landings = self.hub.land(
            [
                self.hub.accept(json.dumps(d).encode(), world_id=w, actor=ACTOR, stage=s)
                for w, s, d in offered
            ]
        )
        for (world, stage, document), landing in zip(offered, landings, strict=True):
            self.expect(world, stage, document, landing)

    @rule(seconds=st.sampled_from([0.5, 1, 60, 900, 7200]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.hub.store.close()
        self.start()

    def rows(self, world: str, stage: str | None, *, with_expired: bool) -> list[Row]:
        """What the hub should list: newest `as_of` first, then the later receipt."""
        chosen = [
            row
            for (of_world, _), row in self.landed.items()
            if of_world == world
            and stage in (None, row.stage)
            and (with_expired or row.expires_at > self.clock.now)
        ]
        return sorted(chosen, key=lambda row: (row.as_of, row.receipt), reverse=True)

    @invariant()
    def latest_is_the_greatest_unexpired(self) -> None:
        for world in WORLDS:
            for stage in (None, *STAGES):
                rows = self.rows(world, stage, with_expired=False)
                expected = rows[0].body if rows else None
                assert self.hub.latest(world, Filter(stage)) == expected

    @invariant()
    def pages_walk_the_list_in_order(self) -> None:
        for world in WORLDS:
            for which in (Filter(), EVERYTHING):
                walked, cursor = self.hub.page(world, which, limit=2)
                while cursor:
                    bodies, cursor = self.hub.page(world, which, limit=2, cursor=cursor)
                    walked += bodies
                rows = self.rows(world, None, with_expired=which.include_expired)
                assert walked == [row.body for row in rows]

    @invariant()
    def a_version_gives_its_first_body_for_ever(self) -> None:
        for (world, version), row in self.landed.items():
            found = self.hub.lookup(Lookup(world, version, EVERYTHING))
            assert found == row.body
            unexpired = self.hub.lookup(Lookup(world, version, Filter()))
            assert unexpired == (row.body if row.expires_at > self.clock.now else None)

    @invariant()
    def as_of_gives_the_newest_up_to_then(self) -> None:
        for (world, _), asked in self.landed.items():
            rows = self.rows(world, None, with_expired=True)
            expected = next(row.body for row in rows if row.as_of <= asked.as_of)
            found = self.hub.lookup(
                Lookup(world, None, Filter(include_expired=True, up_to=asked.as_of))
            )
            assert found == expected

    @invariant()
    def freshness_knows_the_greatest_instant_ever_landed(self) -> None:
        greatest: dict[tuple[str, str], datetime] = {}
        for (world, _), row in self.landed.items():
            key = (world, row.stage)
            greatest[key] = max(row.as_of, greatest.get(key, row.as_of))
        found = {(world, stage): at for world, stage, at in self.hub.store.newest_per_world()}
        assert found == greatest

    def teardown(self) -> None:
        if hasattr(self, "hub"):
            self.hub.store.close()
        self.directory.cleanup()


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=25, stateful_step_count=25)
