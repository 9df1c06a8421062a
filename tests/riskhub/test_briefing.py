"""Words of the briefing that are easily wrong; what it gathers is tried where it is told."""

import pytest

from riskhub.briefing import percent


@pytest.mark.parametrize(
    ("fraction", "signed", "read"),
    [
        (0.02462, "+2.46 %", "2.46 %"),
        (-0.0004, "-0.04 %", "-0.04 %"),
        (-0.0000004, "0.00 %", "0.00 %"),
        (0.0, "0.00 %", "0.00 %"),
    ],
)
def test_a_fraction_is_read_as_a_percentage(fraction: float, signed: str, read: str) -> None:
    assert percent(fraction, sign=True) == signed
    assert percent(fraction) == read
