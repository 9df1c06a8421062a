"""What holds of the decision whatever is observed, and in whatever order."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
from exiting import START, Engine, load, rule, seen, write_rules
from hypothesis import given

from riskhub.exits.book import RuleBook
from riskhub.exits.replay import Moment, replay

ENTER, LEAVE = 0.08, 0.05
VALUES = st.one_of(st.none(), st.floats(0.01, 0.2), st.sampled_from([ENTER, LEAVE]))
# How much later than the one before, in snapshots, and seen so many hours later; None: no number.
STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), VALUES), max_size=60)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "confirm": st.one_of(
            st.fixed_dictionaries({"days": st.integers(1, 4)}),
            st.fixed_dictionaries({"snapshots": st.integers(1, 4)}),
        ),
        "cool_down": st.sampled_from(["12h", "3d"]),
        "escalate": st.sampled_from([0.1, 1.0]),
    },
)


def book_of(fields: dict[str, Any]) -> RuleBook:
    with TemporaryDirectory() as directory:
        return load(write_rules(Path(directory) / "r.yaml", rule(**fields)))


def moments(steps: list[tuple[int, int, float | None]]) -> list[Moment]:
    """Observations whose snapshots never get older, and whose time never goes back."""
    made, number, now = [], 0, START
    for more, hours, value in steps:
        number += more
        now = max(now + timedelta(hours=hours), START + timedelta(days=number))
        made.append(Moment(now, seen(number, value)))
    return made


@given(RULES, STEPS)
def test_of_one_rule_and_world_one_episode_is_open_at_most_and_each_opens_and_closes_once(
    fields: dict[str, Any], steps: list[tuple[int, int, float | None]]
) -> None:
    one = Engine(book_of(fields))
    opened: list[str] = []
    for moment in moments(steps):
        for told in one.see(moment.seen, moment.at):
            episode = one.last
            if told == "opened":
                assert episode.id not in opened
                assert opened == [] or one.episodes[opened[-1]].closed_at is not None
                opened.append(episode.id)
            else:
                assert episode.id == opened[-1]
    still_open = [each for each in one.episodes.values() if each.closed_at is None]
    assert len(still_open) <= 1
    assert list(one.episodes) == opened


@given(RULES, st.lists(st.floats(LEAVE + 1e-9, ENTER - 1e-9), max_size=30), st.booleans())
def test_within_the_band_nothing_flaps(
    fields: dict[str, Any], values: list[float], is_open: bool
) -> None:
    one = Engine(book_of(fields))
    if is_open:
        one.see_days(*[0.9] * 4)
    before = len(one.signals)
    one.see_days(*values, first=4)
    assert len(one.signals) == before
    assert (one.open is not None) == is_open


@given(RULES, STEPS)
def test_without_a_number_nothing_opens_or_closes(
    fields: dict[str, Any], steps: list[tuple[int, int, float | None]]
) -> None:
    one = Engine(book_of(fields))
    for moment in moments(steps):
        before = one.open
        told = one.see(moment.seen, moment.at)
        found = moment.seen.measured
        assert found is not None
        if not found.tails:
            assert told == []
            assert (one.open is None) == (before is None)


@given(RULES, STEPS)
def test_an_episode_opens_on_a_breach_and_closes_on_a_safe_number_alone(
    fields: dict[str, Any], steps: list[tuple[int, int, float | None]]
) -> None:
    one = Engine(book_of(fields))
    for moment in moments(steps):
        told = one.see(moment.seen, moment.at)
        if "opened" in told:
            assert one.last.value >= ENTER
        if "closed" in told:
            assert one.last.value <= LEAVE
        if one.open is not None:
            assert one.open.worst >= max(ENTER, one.open.value)


@given(RULES, STEPS)
def test_a_replay_comes_to_what_was_decided_live_on_the_same_observations(
    fields: dict[str, Any], steps: list[tuple[int, int, float | None]]
) -> None:
    book = book_of(fields)
    live = Engine(book)
    observed = moments(steps)
    for moment in observed:
        live.see(moment.seen, moment.at)
    again = replay(book, iter(observed))
    assert {episode.id: episode for episode in again.episodes} == live.episodes
    assert [(signal.signal, signal.why) for signal in again.signals] == live.signals


@given(RULES, STEPS, st.randoms(use_true_random=False))
def test_to_look_more_often_decides_nothing_else(
    fields: dict[str, Any], steps: list[tuple[int, int, float | None]], often: Any
) -> None:
    """Each look at what is known already, at the same time, is told of once."""
    book = book_of(fields)
    once, twice = Engine(book), Engine(book)
    for moment in moments(steps):
        once.see(moment.seen, moment.at)
        for _ in range(often.randint(1, 3)):
            twice.see(moment.seen, moment.at)
    assert twice.signals == once.signals
