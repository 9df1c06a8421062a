"""Pictures of numbers, as SVG. What is shown is decided elsewhere; here is only how it looks.

The same numbers give the same bytes: no clock, no random name. Matplotlib is loaded with the first
picture, for nothing else needs it.
"""

import io
import threading
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSS, _VAR, _ES, _EXCEEDED = "#8d97a8", "#1f5fbf", "#8a4fb0", "#c62828"
_LIGHTS = {"green": "#3c9d4e", "yellow": "#f2c230", "red": "#d33a2c"}
# Names inside the file that do not differ from one time to the next; text that stays text.
_SETTINGS: Any = {
    "svg.hashsalt": "riskhub",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it: the layout is the same anywhere
    "font.size": 10,
}
_ONE_AT_A_TIME = threading.Lock()  # they are the whole process's while a picture is drawn


def backtest_svg(
    days: Sequence[date],
    losses: ArrayLike,
    var: ArrayLike,
    es: ArrayLike | None = None,
    *,
    title: str,
    level: float,
    zones: Sequence[str | None] | None = None,
) -> bytes:
    """Each day's return, the VaR that was forecast for it, and the traffic light in a strip below.

    A day that lost more than its VaR is marked.

    `days`: (n,) ascending. `losses`, `var`, `es`: (n,), fractions of equity, positive when money is
    lost. `level`: of the VaR, such as 0.99. `zones`: (n,) ``green``, ``yellow`` or ``red``, None on
    a day without a light. With n = 0 the picture says that there is nothing yet.
    Raises ValueError where lengths differ.
    """
    loss, value = np.asarray(losses, dtype=float), np.asarray(var, dtype=float)
    shortfall = None if es is None else np.asarray(es, dtype=float)
    lights = list(zones) if zones is not None else [None] * len(days)
    if any(len(each) != len(days) for each in (loss, value, shortfall, lights) if each is not None):
        raise ValueError("a picture needs a loss, a VaR and a light for each of its days")

    import matplotlib as mpl  # noqa: PLC0415 - loaded with the first picture
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with _ONE_AT_A_TIME, mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(11, 5), facecolor="white", layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[16, 1])
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        if len(days):
            _draw_returns(above, np.array(days), loss, value, shortfall, f"{100 * level:.4g} %")
            _draw_lights(below, days, lights)
            figure.legend(loc="outside upper right", ncols=4, frameon=False)
        else:
            _say(above, below, "no outcomes yet")
        written = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Title": title})
    return written.getvalue()


def _draw_returns(axes: "Axes", days: Any, losses: Any, var: Any, es: Any, level: str) -> None:
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415

    # One broken line instead of a bar each: a tenth of the file for thirty years of days.
    bars = np.column_stack([np.zeros(len(days)), -losses, np.full(len(days), np.nan)]).ravel()
    axes.plot(
        np.repeat(days, 3), bars, color=_LOSS, linewidth=_bar_width(len(days)), label="return"
    )
    axes.plot(days, -var, color=_VAR, linewidth=1.3, label=f"−VaR {level}")
    if es is not None:
        axes.plot(days, -es, color=_ES, linewidth=1.0, linestyle="--", label=f"−ES {level}")
    hits = losses > var
    axes.plot(
        days[hits],
        -losses[hits],
        linestyle="none",
        marker="o",
        markersize=4.5,
        markerfacecolor=_EXCEEDED,
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=f"exceeded on {hits.sum()} of {len(days)} days",
    )
    axes.axhline(0, color="#444444", linewidth=0.6)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.grid(axis="y", color="#e3e6eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("of equity, a day")


def _draw_lights(axes: "Axes", days: Sequence[date], lights: Sequence[str | None]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num  # noqa: PLC0415

    starts = [float(each) for each in date2num(list(days))]
    ends = [*starts[1:], starts[-1] + 1.0]
    stretches = groupby(range(len(lights)), key=lambda number: lights[number])
    for light, numbers in stretches:
        if light is not None:
            stretch = list(numbers)
            start = starts[stretch[0]]
            width = ends[stretch[-1]] - start
            axes.broken_barh([(start, width)], (0, 1), facecolors=_LIGHTS[light], linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("light", rotation=0, ha="right", va="center")
    axes.spines[["top", "right", "left"]].set_visible(False)
    locator = AutoDateLocator(minticks=2)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _say(above: "Axes", below: "Axes", text: str) -> None:
    for axes in (above, below):
        axes.set_axis_off()
    above.text(0.5, 0.5, text, ha="center", va="center", color="#555555")


def _bar_width(count: int) -> float:
    """Points of one of so many bars side by side, over about 700."""
    return float(np.clip(450 / count, 0.35, 4.0))
