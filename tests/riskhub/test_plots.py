"""The picture of a backtest: it is SVG, it says what was given, and it is the same every time."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from riskhub.plots import backtest_svg

N = 60
DAYS = [date(2008, 9, 1) + timedelta(days=n) for n in range(N)]
LOSSES = 0.02 * np.sin(np.arange(N))
VAR, ES = np.full(N, 0.0195), np.full(N, 0.025)
ZONES: list[str | None] = [None] * 20 + ["green"] * 20 + ["yellow"] * 15 + ["red"] * 5
LIGHTS = {"green": "#3c9d4e", "yellow": "#f2c230", "red": "#d33a2c"}


def drawn(**changed: Any) -> bytes:
    given = {"days": DAYS, "losses": LOSSES, "var": VAR, "es": ES, "zones": ZONES} | changed
    return backtest_svg(title="banks, historical", level=0.99, **given)


def texts(svg: bytes) -> list[str]:
    return [each.text or "" for each in ET.fromstring(svg).iter() if each.tag.endswith("text")]  # noqa: S314 - our own


def test_it_is_svg_that_names_its_parts() -> None:
    said = texts(drawn())

    hits = int((LOSSES > VAR).sum())
    assert hits > 0
    for wanted in ("banks, historical", "−VaR 99 %", "−ES 99 %", "light"):
        assert wanted in said
    assert f"exceeded on {hits} of {N} days" in said
    assert "−ES 99 %" not in texts(drawn(es=None))


def test_each_light_that_there_was_is_a_colour_below() -> None:
    svg = drawn().decode()
    assert all(colour in svg for colour in LIGHTS.values())

    calm = drawn(zones=["green"] * N).decode()
    assert [name for name, colour in LIGHTS.items() if colour in calm] == ["green"]
    dark = drawn(zones=None).decode()
    assert not any(colour in dark for colour in LIGHTS.values())


def test_the_same_numbers_give_the_same_bytes_in_any_process_and_any_thread() -> None:
    with ThreadPoolExecutor(4) as pool:
        pictures = set(pool.map(lambda _: drawn(), range(8)))
    code = "import sys, test_plots; sys.stdout.buffer.write(test_plots.drawn())"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        check=True,
    ).stdout

    assert pictures == {elsewhere}
    assert drawn(losses=-LOSSES) != elsewhere


def test_no_day_at_all_is_said() -> None:
    nothing = drawn(days=[], losses=[], var=[], es=None, zones=[])

    assert "no outcomes yet" in texts(nothing)


def test_a_title_is_text_and_never_markup() -> None:
    svg = backtest_svg(DAYS, LOSSES, VAR, title="<script>$x$ & co", level=0.975)

    assert "<script>$x$ & co" in texts(svg)
    assert "−VaR 97.5 %" in texts(svg)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="each of its days"):
        drawn(var=VAR[1:])


def test_matplotlib_is_loaded_with_the_first_picture_alone() -> None:
    code = "import sys, riskhub.plots, riskhub.cli; print('matplotlib' in sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "False"
