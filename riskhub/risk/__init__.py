"""Risk numbers, pure: arrays and values in, arrays and values out.

What belongs here: portfolio returns, volatility, drawdown, value at risk, expected shortfall,
concentration, backtests. What does not: clocks, files, networks, settings, global state, pandas.
Time is an argument.

Conventions, everywhere in this package:
- Returns are simple and daily, fractions of equity, oldest first. Weights are signed fractions
  of equity.
- Losses are L = -r. VaR, ES and drawdowns are positive when money is lost.
- A confidence level is an exact Fraction, such as Fraction(99, 100).
- Anything not finite is refused by name; every refusal is a `RiskInputError`, a ValueError.
"""

from riskhub.risk.backtest import exceedances
from riskhub.risk.concentration import (
    NothingHeld,
    effective_names,
    gross,
    herfindahl,
    largest,
    net,
)
from riskhub.risk.inputs import NotFinite, RiskInputError, TooFewReturns, WrongShape
from riskhub.risk.levels import LEVELS, BadLevel, Level, format_level, parse_level, rank
from riskhub.risk.measure import RiskNumbers, measure
from riskhub.risk.returns import (
    Ruin,
    annualised,
    current_drawdown,
    drawdowns,
    drift,
    max_drawdown,
    moments,
    portfolio_returns,
    volatility,
)
from riskhub.risk.var import Method, Tail, historical, normal, normal_from_moments

__all__ = [
    "LEVELS",
    "BadLevel",
    "Level",
    "Method",
    "NotFinite",
    "NothingHeld",
    "RiskInputError",
    "RiskNumbers",
    "Ruin",
    "Tail",
    "TooFewReturns",
    "WrongShape",
    "annualised",
    "current_drawdown",
    "drawdowns",
    "drift",
    "effective_names",
    "exceedances",
    "format_level",
    "gross",
    "herfindahl",
    "historical",
    "largest",
    "max_drawdown",
    "measure",
    "moments",
    "net",
    "normal",
    "normal_from_moments",
    "parse_level",
    "portfolio_returns",
    "rank",
    "volatility",
]
