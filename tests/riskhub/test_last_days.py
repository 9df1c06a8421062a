"""What is remembered of days: read once, again after a while a few at a time, never another's."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from riskhub.last_days import AGAIN_AFTER_SEC, MOST_AGAIN, Key, LastDays
from riskhub.store.overview import Tail

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Days:
    """Stands for the store: gives each world one day, with a number that grows."""

    def __init__(self) -> None:
        self.asked: list[list[Key]] = []
        self.now = 0.0
        self.known = LastDays(
            self,  # type: ignore[arg-type]
            days=5,
            methods=("historical",),
            level="0.99",
            monotonic=lambda: self.now,
        )

    def days_before(self, keys: Sequence[Key], **_: Any) -> dict[Key, list[Tail]]:
        self.asked.append(list(keys))
        return {key: [Tail(NOW, 0.0, len(self.asked))] for key in keys}

    def of(self, *worlds: str, at: datetime = NOW) -> list[float]:
        """The number that stands for each world's days."""
        found = self.known.before({(world, "live"): at for world in worlds})
        return [found[world, "live"][0].es for world in worlds]


def test_days_are_read_once() -> None:
    days = Days()
    assert days.of("a", "b") == [1, 1]
    assert days.of("a", "b", at=NOW + timedelta(hours=3)) == [1, 1]
    assert days.asked == [[("a", "live"), ("b", "live")]]


def test_a_world_with_another_newest_day_is_read_anew_and_no_other() -> None:
    days = Days()
    days.of("a", "b")
    found = days.known.before({("a", "live"): NOW + timedelta(days=1), ("b", "live"): NOW})
    assert [found[key][0].es for key in sorted(found)] == [2, 1]


def test_after_a_while_a_few_are_read_again_the_oldest_first() -> None:
    days, worlds = Days(), [f"w{number:02}" for number in range(MOST_AGAIN + 3)]
    days.of(*worlds)
    days.now = AGAIN_AFTER_SEC
    days.of(*worlds)
    assert len(days.asked[1]) == MOST_AGAIN
    assert days.of(*worlds) == [2] * MOST_AGAIN + [3] * 3
    days.of(*worlds)
    assert len(days.asked) == 3


def test_a_world_that_is_gone_is_forgotten() -> None:
    days = Days()
    days.of("a", "b")
    days.of("a")
    assert days.of("a", "b") == [1, 2]
