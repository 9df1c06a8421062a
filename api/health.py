"""Signs of life for supervisors and load balancers."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends

from api.requests import hub_of
from api.snapshots import problem_responses
from riskhub.hub import Hub

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, str]:
    """Answers as long as the process does; asks nobody else."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="The hub can serve",
    responses=problem_responses(HTTPStatus.SERVICE_UNAVAILABLE),
)
def readyz(hub: Annotated[Hub, Depends(hub_of)]) -> dict[str, str]:
    """503 while the database can't be used."""
    hub.store.ping()
    return {"status": "ready", "store": "ok"}
