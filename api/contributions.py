"""Which positions a world's VaR and ES come from, and what a candidate would add."""

from functools import partial
from math import fsum
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import measured, openapi
from api.measured import Row
from api.requests import Query, authorize, world_of
from riskhub.auth import Scope
from riskhub.risk.contributions import NothingToShare, shares
from riskhub.store.numbers import NumbersFilter

_ASKED = ("version", "stage", *measured.OF_A_PAGE)
_COMPONENTS = ("var", "es", "historical_var", "historical_es")
_KEPT = [
    *("world_id", "version", "as_of", "stage", "position", "horizon_days", "snapshot_digest"),
    *("covariance_source", "covariance_digest", "returns_source", "returns_digest"),
    "code_version",
]

router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}/contributions",
    tags=["risk"],
    responses=measured.REFUSALS,
)


@router.get(
    "",
    summary="Which positions VaR and ES come from",
    description=(
        "Euler contributions of the newest snapshot that is measured, of one `version`, or a page, "
        "as for `/risk`. They add up to the VaR and ES of the book. Where there are none the list "
        "is empty and `absent` says why. With a candidate in the snapshot's `constraints`, what "
        "it would do to VaR and ES stands under `candidate`."
    ),
    responses=openapi.CONTRIBUTIONS,
    openapi_extra=openapi.parameters(*_ASKED, limit=openapi.page_of(openapi.MOST_CONTRIBUTIONS)),
)
async def get_contributions(request: Request) -> Response:
    """The newest contributions, those of a version, or a page."""
    store = authorize(request, Scope.READ).hub.store
    world_id = world_of(request)
    query = Query(request, _ASKED)
    which = NumbersFilter(
        version=query.label("version"),
        stage=query.label("stage"),
        since=query.instant("as_of_from"),
        up_to=query.instant("as_of_to"),
    )
    return await measured.answer(
        request,
        query,
        "contributions",
        partial(store.contributions, world_id, which),
        why_none=partial(measured.why_no_numbers, store, world_id, which.version),
        show=_shown,
        largest=openapi.MOST_CONTRIBUTIONS,
    )


def _shown(row: Row) -> Row:
    positions: list[Row] = row["contributions"]
    columns = {name: [each[name] for each in positions] for name in _COMPONENTS}
    parts = {f"{name}_share": _shares(column) for name, column in columns.items()}
    return {name: row[name] for name in _KEPT} | {
        "level": row["contributions_level"],
        "absent": _absent(row),
        "total": {
            name: None if None in column or not column else fsum(column)
            for name, column in columns.items()
        },
        "contributions": [
            each | {name: column[place] for name, column in parts.items()}
            for place, each in enumerate(positions)
        ],
        "candidate": _candidate(row["candidate"]),
    }


def _absent(row: Row) -> dict[str, str]:
    """Why there are no contributions, or no candidate that was asked for."""
    absent = {
        name: row["absent"][name] for name in ("contributions", "candidate") & row["absent"].keys()
    }
    if not row["contributions"]:
        absent.setdefault(
            "contributions", row["unavailable"] or f"{row['code_version']} has made none"
        )
    return absent


def _shares(components: list[float | None]) -> list[Any]:
    """Of each in the total; None where that is unknown, or no loss."""
    unknown: list[Any] = [None] * len(components)
    if None in components or not components:
        return unknown
    try:
        found: list[Any] = shares([each for each in components if each is not None]).tolist()
    except NothingToShare:
        return unknown
    return found


def _candidate(tails: list[Row]) -> Row | None:
    if not tails:
        return None
    common = ("candidate_id", "candidate_weight", "funding")
    return {name: tails[0][name] for name in common} | {
        "tails": [
            {name: value for name, value in tail.items() if name not in common}
            | {
                f"incremental_{name}": tail[f"{name}_with"] - tail[f"{name}_without"]
                for name in ("var", "es")
            }
            for tail in tails
        ]
    }
