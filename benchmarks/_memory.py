"""What `latest` is measured against: the same framework, returning the same bytes from memory."""

import json

from fastapi import FastAPI, Response

from benchmarks.ingest import SMALL

BODY = json.dumps(SMALL).encode() + b" " * 250  # about what the hub adds

app = FastAPI()


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    """It serves."""
    return {"status": "ready"}


@app.get("/risk-hub/worlds/{world_id}/snapshots/latest")
async def latest(world_id: str) -> Response:  # noqa: ARG001 - as ours has it
    """The bytes."""
    return Response(BODY, media_type="application/json")
