"""How good a world's VaR has been: every test of each method, and the picture of one."""

import asyncio
import hashlib
import json
from datetime import date
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import measured, openapi
from api.answers import is_known, json_answer
from api.requests import Query, authorize, world_of
from riskhub.auth import Scope
from riskhub.backtesting import WINDOW, Backtested, backtests_of
from riskhub.metrics import CODE_VERSION
from riskhub.plots import backtest_svg
from riskhub.risk import LEVELS, Level, Method, format_level, parse_level
from riskhub.risk.backtest import (
    AcerbiSzekely,
    Christoffersen,
    Multinomial,
    MultinomialStatistic,
    ShortfallStatistic,
)
from riskhub.store import Store

Json = dict[str, Any]

_ASKED = ("stage", "method", "level", "from", "to", "window")
_METHODS = get_args(Method)
_LEVELS = tuple(map(format_level, LEVELS))

router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}",
    tags=["risk"],
    responses=measured.REFUSALS,
)


class Question(NamedTuple):
    """Which forecasts are held against what they met; the days are those of the outcomes."""

    world_id: str
    stage: str
    method: str | None
    level: Level
    first: date
    last: date
    window: int

    def tested(self, store: Store) -> dict[str, Backtested]:
        """Every test, by method."""
        return backtests_of(
            store,
            self.world_id,
            stage=self.stage,
            methods=None if self.method is None else [self.method],
            level=self.level,
            first=self.first,
            last=self.last,
            window=self.window,
        )


@router.get(
    "/backtests",
    summary="How good each VaR has been",
    description=(
        "Each method's VaR and ES of a world and stage, as they were committed before the outcome, "
        "against the loss of the next trading day. Methods with fewer than two known outcomes are "
        "left out; one that had none on some days is tested on the others. `hindsight` counts "
        "forecasts that landed after their outcome. Computed when it is asked for, one request at "
        "a time: seconds for decades of all methods."
    ),
    responses=openapi.BACKTESTS,
    openapi_extra=openapi.parameters(*_ASKED, **openapi.BACKTEST_PARAMETERS),
)
async def get_backtests(request: Request) -> Response:
    """All tests of every method, or of one."""
    edge = authorize(request, Scope.READ)
    question = _question(request)
    async with edge.backtests:
        body = await asyncio.to_thread(_document, edge.hub.store, question)
    return json_answer(body)


@router.get(
    "/backtests.svg",
    summary="The picture of one backtest",
    description=(
        "Returns, the VaR and ES that were forecast for them, the days that exceeded, and Basel's "
        "traffic light. The same numbers give the same bytes; with the `ETag` in `If-None-Match` "
        "the answer is 304 as long as they are the same."
    ),
    responses=openapi.BACKTEST_PICTURE,
    openapi_extra=openapi.parameters(
        *_ASKED, **openapi.BACKTEST_PARAMETERS | {"method": openapi.METHOD_OF_PICTURE}
    ),
)
async def get_backtest_picture(request: Request) -> Response:
    """One method's days as an SVG."""
    edge = authorize(request, Scope.READ)
    question = _question(request)
    if question.method is None:
        raise measured.one_of("method", _METHODS)
    async with edge.backtests:
        tested = (await asyncio.to_thread(question.tested, edge.hub.store)).get(question.method)
        headers = {"ETag": _etag(question, tested), "Cache-Control": "private, no-cache"}
        if is_known(request, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        picture = await asyncio.to_thread(_picture, question, tested)
    return Response(picture, media_type=openapi.SVG, headers=headers)


def _question(request: Request) -> Question:
    world_id = world_of(request)
    query = Query(request, _ASKED)
    method, level = query.text("method"), measured.level_of(query) or _LEVELS[-1]
    for name, asked, there_are in (("method", method, _METHODS), ("level", level, _LEVELS)):
        if asked is not None and asked not in there_are:
            raise measured.one_of(name, there_are)
    return Question(
        world_id=world_id,
        stage=query.label("stage") or openapi.BACKTEST_STAGE,
        method=method,
        level=parse_level(level),
        first=query.day("from") or date.min,
        last=query.day("to") or date.max,
        window=query.number("window", WINDOW, openapi.LONGEST_WINDOW),
    )


# -- as a picture ---------------------------------------------------------------------------------


def _etag(question: Question, tested: Backtested | None) -> str:
    """Of everything that the picture shows, without drawing it."""
    shown = hashlib.sha256(f"{CODE_VERSION} {question}".encode())
    if tested is not None:
        shown.update(_digest(tested).encode())
    return f'"{shown.hexdigest()[:32]}"'


def _picture(question: Question, tested: Backtested | None) -> bytes:
    draw = partial(
        backtest_svg,
        title=f"{question.world_id}, {question.stage}: {question.method} VaR",
        level=float(question.level),
    )
    if tested is None:
        return draw([], [], [])
    found = tested.outcomes
    return draw(found.days, found.losses, found.var, found.es, zones=tested.zones)


# -- as JSON --------------------------------------------------------------------------------------


def _document(store: Store, question: Question) -> str:
    tested = question.tested(store)
    outcomes = store.outcomes_on(question.first, question.last, worlds=[question.world_id])
    prices = {row["prices_digest"] for row in outcomes if row["stage"] == question.stage}
    return json.dumps(
        {
            "world_id": question.world_id,
            "stage": question.stage,
            "level": format_level(question.level),
            "window": question.window,
            "prices_digests": sorted(prices),
            "code_version": CODE_VERSION,
            "backtests": [_shown(each) for each in tested.values()],
        },
        allow_nan=False,
    )


def _shown(tested: Backtested) -> Json:
    tests, found = tested.tests, tested.outcomes
    light, windows = tests.traffic_light, list(map(str, tests.rolling.zones))
    return {
        "method": tested.method,
        "from": found.days[0].isoformat(),
        "to": found.days[-1].isoformat(),
        "observations": tests.observations,
        "exceedances": tests.exceedances,
        "expected": tests.kupiec.expected,
        "hindsight": int(found.hindsight.sum()),
        "kupiec": _p_values(tests.kupiec),
        "christoffersen": _christoffersen(tests.christoffersen),
        "conditional_coverage": _p_values(tests.christoffersen.conditional_coverage),
        "traffic_light": {
            name: getattr(light, name)
            for name in (
                *("zone", "observations", "exceedances", "yellow_from", "red_from"),
                *("cumulative_probability", "p_value", "multiplier"),
            )
        },
        "windows": {"count": len(windows)}
        | {
            zone: windows.count(zone) / len(windows) if windows else None
            for zone in ("green", "yellow", "red")
        },
        "acerbi_szekely": _shortfall(tests.acerbi_szekely),
        "multinomial": _multinomial(tests.multinomial),
        "untested": list(tests.untested),
        "outcomes_digest": _digest(tested),
    }


def _p_values(test: Any) -> Json:
    names = ("statistic", "p_value", "p_value_exact", "reject", "reject_exact", "significance")
    return {name: getattr(test, name) for name in names}


def _christoffersen(test: Christoffersen) -> Json:
    counted = ("n00", "n01", "n10", "n11", "after_calm", "after_exceedance")
    return _p_values(test) | {name: getattr(test, name) for name in counted}


def _shortfall(test: AcerbiSzekely | None) -> Json | None:
    def of(one: ShortfallStatistic) -> Json:
        names = ("statistic", "p_value", "critical_value", "reject")
        return {name: getattr(one, name) for name in names}

    if test is None:
        return None
    return {
        "z1": of(test.z1),
        "z2": of(test.z2),
        "significance": test.significance,
        "simulations": test.simulations,
        "seed": test.seed,
    }


def _multinomial(test: Multinomial | None) -> Json | None:
    def of(one: MultinomialStatistic) -> Json:
        names = ("statistic", "degrees_of_freedom", "p_value", "p_value_simulated", "reject")
        return {name: getattr(one, name) for name in names}

    if test is None:
        return None
    return {
        "levels": [format_level(1 - alpha) for alpha in test.alphas],
        "counts": list(test.counts),
        "expected": list(test.expected),
        "nass": of(test.nass),
        "pearson": of(test.pearson),
        "likelihood_ratio": of(test.likelihood_ratio),
        "significance": test.significance,
        "simulations": test.simulations,
        "seed": test.seed,
    }


def _digest(tested: Backtested) -> str:
    """Of the days, the losses and the forecasts that were tested."""
    found = tested.outcomes
    held = hashlib.sha256(repr((found.forecast_days, found.days)).encode())
    ladder = [found.ladder[level] for level in sorted(found.ladder)]
    for column in (found.losses, found.var, found.es, found.hindsight, *ladder):
        held.update(column.tobytes())
    return f"sha256:{held.hexdigest()}"
