"""The page of the whole hub."""

from collections import Counter

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.edge import Edge, edge_of
from api.pages.access import may_read, to_login
from api.pages.rendering import page, render
from riskhub.status import SPARK_DAYS, hub_status

_MOST_ALERTS = 12  # at once; the others are one click away

router = APIRouter(include_in_schema=False)


@router.get("/")
async def get_overview(request: Request) -> Response:
    """All worlds, budgets, the pipeline, and what is wrong with them."""
    if not may_read(request, edge_of(request)):
        return to_login(request)

    def make(edge: Edge) -> Response:
        found = hub_status(edge.hub, edge.budgets, edge.days)
        return render(
            request,
            "overview.html",
            hub=found,
            states=Counter(str(world.freshness.state) for world in found.worlds),
            zones=Counter(world.light.zone for world in found.worlds if world.light),
            spark_days=SPARK_DAYS,
            most_alerts=_MOST_ALERTS,
        )

    return await page(request, make)
