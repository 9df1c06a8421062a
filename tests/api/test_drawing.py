"""Where lines and bars go."""

from datetime import UTC, datetime

import pytest

from api.pages import rendering
from api.pages.drawing import HEIGHT, WIDTH, Bar, bars, sparkline
from riskhub.store.overview import Tail

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def points(text: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in (point.split(",") for point in text.split())]


def tails(*pairs: tuple[float, float]) -> tuple[Tail, ...]:
    return tuple(Tail(NOW, *pair) for pair in pairs)


def test_one_day_is_no_line() -> None:
    assert sparkline(()) is None
    assert sparkline(tails((0.1, 0.2))) is None


def test_a_line_goes_from_the_left_to_the_right_and_a_greater_loss_is_higher() -> None:
    drawn = sparkline(tails((0.01, 0.02), (0.03, 0.04), (0.02, 0.03)))
    assert drawn is not None
    (left, low), (_, high), (right, last) = points(drawn.var)
    assert (left, right) == (5, WIDTH - 5)
    assert low > last > high
    assert (drawn.x, drawn.y) == (right, last)
    assert points(drawn.band)[:3] == points(drawn.var)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points(drawn.band))


@pytest.mark.parametrize("pair", [(0.05, 0.0501), (0.0, 0.0)])
def test_what_does_not_move_is_flat_in_the_middle(pair: tuple[float, float]) -> None:
    drawn = sparkline(tails(pair, pair))
    assert drawn is not None
    heights = {y for _, y in points(drawn.var)}
    assert len(heights) == 1
    assert heights.pop() <= HEIGHT


def test_bars_have_one_scale_and_one_zero() -> None:
    assert bars([-0.3, None, 0.1]) == [Bar(0, 75, 75), None, Bar(75, 25, 75)]
    assert bars([0.2, 0.1]) == [Bar(0, 100, 0), Bar(0, 50, 0)]
    assert bars([None, 0.0]) == [None, None]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"),
     (172_799, "47 h"), (172_800, "2 d"), (123_456_789, "1,428 d")],
)  # fmt: skip
def test_an_age_is_told_in_the_largest_unit_that_tells_two_apart(
    seconds: float, shown: str
) -> None:
    assert rendering.age(seconds).replace("\u202f", " ") == shown


def test_a_percentage_has_a_true_minus_and_none_is_a_dash() -> None:
    assert rendering.percent(-0.01234) == "−1.23\u202f%"
    assert rendering.percent(None) == "–"
    assert rendering.percent(0.5, 0) == "50\u202f%"
