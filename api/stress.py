"""What a world's portfolios lose under stress: of the newest, of one version, or a page."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import measured, openapi
from api.measured import Row
from api.requests import Query, authorize, world_of
from riskhub.auth import Scope
from riskhub.store import Store
from riskhub.store.stress import Origin, StressFilter
from riskhub.strict_json import violation

_ASKED = ("version", "stage", "scenario", "origin", *measured.OF_A_PAGE)
_REVERSE = ("loss_limit", "against", "market")

router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}/stress",
    tags=["risk"],
    responses=measured.REFUSALS,
)


@router.get(
    "",
    summary="What is lost under stress, and what it takes to lose a limit",
    description=(
        "Of the newest snapshot that was put under stress, of one `version`, or a page, as for "
        "`/risk`. A scenario that can't be had for a portfolio says why in `unavailable`. Beside "
        "the results stand the snapshot's own `stress`, as `origin` `producer`, and the reverse "
        "stress. A `scenario` that these snapshots do not have is a 422 that names those there are."
    ),
    responses=openapi.STRESS,
    openapi_extra=openapi.parameters(
        *_ASKED,
        scenario=openapi.SCENARIO,
        origin=openapi.ORIGIN,
        limit=openapi.page_of(openapi.MOST_STRESSED),
    ),
)
async def get_stress(request: Request) -> Response:
    """The newest stress results, those of a version, or a page."""
    store = authorize(request, Scope.READ).hub.store
    world_id = world_of(request)
    query = Query(request, _ASKED)
    which = StressFilter(
        version=query.label("version"),
        stage=query.label("stage"),
        since=query.instant("as_of_from"),
        up_to=query.instant("as_of_to"),
        scenario=query.label("scenario", longest=openapi.LONGEST_SCENARIO),
        origin=_origin(query.text("origin")),
    )
    return await measured.answer(
        request,
        query,
        "stress",
        partial(store.stress, world_id, which),
        why_none=partial(measured.why_no_numbers, store, world_id, which.version),
        check=partial(_check_scenario, store, world_id, which),
        show=_shown,
        largest=openapi.MOST_STRESSED,
    )


def _origin(text: str | None) -> Origin | None:
    known: tuple[Origin, ...] = get_args(Origin)
    for origin in known:
        if text == origin:
            return origin
    if text is not None:
        raise violation("origin", f"must be {' or '.join(known)}")
    return None


def _check_scenario(store: Store, world_id: str, which: StressFilter, found: Sequence[Row]) -> None:
    """Refuse a scenario that neither these snapshots nor the world's newest has.

    Raises:
        ContractViolation: naming the parameter, and what there is.
    """
    if which.scenario is None or any(row["results"] for row in found):
        return
    all_scenarios = replace(which, scenario=None, origin=None)
    of_these = store.stress(world_id, all_scenarios, limit=max(1, len(found))).rows
    newest = store.stress(world_id, limit=1).rows
    there_are = {each["scenario"] for row in (*of_these, *newest) for each in row["results"]}
    if there_are and which.scenario not in there_are:
        raise measured.one_of("scenario", sorted(there_are))


def _shown(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in _REVERSE} | {
        "reverse": {name: row[name] for name in _REVERSE}
    }
