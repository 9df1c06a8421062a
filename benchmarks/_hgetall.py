"""The framework alone: a route that answers with one hash of Redis, asked as simply as can be."""

import json
import os

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

REDIS = "RISKHUB_REDIS_URL"


def app() -> FastAPI:
    """What the server calls in the process that serves it."""
    redis = Redis.from_url(os.environ[REDIS], decode_responses=True)

    async def hgetall(request: Request) -> Response:
        symbol = request.query_params["symbol"]
        fields = await redis.hgetall(f"quantum:portfolio:budget:{symbol}")
        return Response(json.dumps(fields), media_type="application/json")

    async def readyz(_request: Request) -> Response:
        return Response("ready")

    bare = FastAPI()
    bare.router.routes += [
        Route("/budget/check", hgetall, methods=["POST"]),
        Route("/readyz", readyz),
    ]
    return bare
