"""The risk numbers of one world: the newest, of one version, or a page by `as_of`."""

from collections.abc import Sequence
from functools import partial
from typing import get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import measured, openapi
from api.measured import Row
from api.requests import Query, authorize, world_of
from riskhub.auth import Scope
from riskhub.risk import Method
from riskhub.store import Store
from riskhub.store.numbers import NumbersFilter

_METHODS = frozenset(get_args(Method))
_ASKED = ("version", "stage", "method", "level", *measured.OF_A_PAGE)

router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}/risk",
    tags=["risk"],
    responses=measured.REFUSALS,
)


@router.get(
    "",
    summary="Risk numbers, each with what it was made from",
    description=(
        "Of the newest snapshot that is measured (the greatest `as_of`, then the later landing), "
        "or of one `version`; expired or not. With `as_of_from`, `as_of_to`, `limit` or `cursor` a "
        'page, newest first, whose `Link` header with `rel="next"` leads to the next one. What is '
        "given applies together. A `method` or `level` that this world's numbers do not have is a "
        "422 that names those there are; a method that a snapshot could not be measured by has no "
        "tail, and `absent` says why. A rejected snapshot has no numbers: asked for by `version`, "
        "the 404 says why it was rejected."
    ),
    responses=openapi.RISK,
    openapi_extra=openapi.parameters(*_ASKED),
)
async def get_risk(request: Request) -> Response:
    """The newest numbers, those of a version, or a page."""
    store = authorize(request, Scope.READ).hub.store
    world_id = world_of(request)
    query = Query(request, _ASKED)
    which = NumbersFilter(
        version=query.label("version"),
        stage=query.label("stage"),
        since=query.instant("as_of_from"),
        up_to=query.instant("as_of_to"),
        method=query.label("method"),
        level=measured.level_of(query),
    )
    return await measured.answer(
        request,
        query,
        "risk",
        partial(store.numbers, world_id, which),
        why_none=partial(measured.why_no_numbers, store, world_id, which.version),
        check=partial(_check_kinds, store, world_id, which),
    )


def _check_kinds(store: Store, world_id: str, which: NumbersFilter, found: Sequence[Row]) -> None:
    """Refuse a method or level that neither these snapshots nor the world's newest has.

    A filter that is misspelt must not look like numbers that are missing. A method that one of
    them could not be measured by is spelt right. Where no tails are at all, there is nothing to
    tell it by.

    Raises:
        ContractViolation: naming the parameter, and what there is.
    """
    if (which.method or which.level) is None or any(row["tails"] for row in found):
        return
    looked_at = [*found, *store.numbers(world_id, limit=1).rows]
    kinds = store.tail_kinds({row["position"] for row in looked_at})
    methods, levels = {method for method, _ in kinds}, {level for _, level in kinds}
    absent = _METHODS & {name for row in looked_at for name in row["absent"]}
    if which.method is not None and methods and which.method not in methods | absent:
        raise measured.one_of("method", sorted(methods))
    if which.level is not None and levels and which.level not in levels:
        raise measured.one_of("level", sorted(levels))
