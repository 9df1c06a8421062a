"""The bulk door: many snapshots in one request, for backfills.

Newline-delimited JSON, one snapshot a line, each naming its own ``world_id``; the answer is one
line a line, in order. Lines land in transactions of a few hundred while the request still arrives.
Memory is bounded whatever the request's length: a line has the limit of a body, the lines of one
transaction together hardly more, and answers wait in a spool that goes to disk, so a client that
reads nothing until it has sent everything (most do) never leaves both sides waiting for each other.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import IO, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import StreamingResponse

from api import openapi
from api.problems import describe, problem
from api.requests import Producer, Query, authorize_producer, chunks
from api.snapshots import outcome_of
from api.traced import note_landings, now_ns
from riskhub.errors import ContractViolation, FieldError, VersionConflict
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.snapshot import Snapshot

LINES_PER_TRANSACTION = 500
_SPOOL_IN_MEMORY_BYTES = 2**20

router = APIRouter(tags=["snapshots"])


class _TooLong:
    """Stands for a line that was longer than a body may be, and was not kept."""


@router.post(
    "/risk-hub/snapshots:batch",
    summary="Land many snapshots (NDJSON)",
    description="Lands each line as the single door would. A bad line is answered and stops none.",
    response_description="One JSON line a line: line, status, and what the hub made of it",
    responses=openapi.BATCH_RESPONSES,
    openapi_extra=openapi.BATCH,
)
async def post_batch(request: Request) -> StreamingResponse:
    """Land each line as the single door would."""
    edge, producer = authorize_producer(request)
    Query(request, ())  # who asks for `dry_run` must not find everything landed
    hub, settings = edge.hub, edge.settings
    spool = tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY_BYTES)  # noqa: SIM115 - outlives us
    try:
        batch: list[tuple[int, bytes | _TooLong]] = []
        held = 0
        async for number, line in _lines(request, settings):
            batch.append((number, line))
            held += len(line) if isinstance(line, bytes) else 0
            if len(batch) == LINES_PER_TRANSACTION or held >= settings.max_body_bytes:
                await asyncio.to_thread(_land_lines, hub, producer, batch, spool)
                batch, held = [], 0
        await asyncio.to_thread(_land_lines, hub, producer, batch, spool)
    except BaseException:
        spool.close()
        raise
    return StreamingResponse(_drain(spool), media_type="application/x-ndjson")


async def _lines(
    request: Request, settings: Settings
) -> AsyncIterator[tuple[int, bytes | _TooLong]]:
    """The request's non-empty lines with their numbers, never holding much more than one."""
    limit = settings.max_body_bytes
    number, held, skipping = 1, bytearray(), False
    async for chunk in chunks(request, settings.body_timeout_sec):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = bytes(held + end)
            if skipping or len(line) > limit:
                yield number, _TooLong()
            elif line.strip():
                yield number, line
            held, skipping = bytearray(), False
            number += 1
        if not skipping:
            held += rest
        if len(held) > limit:
            held, skipping = bytearray(), True
    if skipping:
        yield number, _TooLong()
    elif held.strip():
        yield number, bytes(held)


def _land_lines(
    hub: Hub, producer: Producer, batch: list[tuple[int, bytes | _TooLong]], spool: IO[bytes]
) -> None:
    """Land one transaction's worth of lines and spool an answer for each, in order."""
    answers: dict[int, dict[str, Any]] = {}
    accepted: list[tuple[int, Snapshot]] = []
    for number, line in batch:
        if isinstance(line, _TooLong):
            limit = hub.settings.max_body_bytes
            error = FieldError("body", f"the line is longer than {limit} bytes")
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            answers[number] = problem(status, error.message, [error])
            continue
        try:
            snapshot = hub.accept(line, world_id=None, actor=producer.actor, stage=producer.stage)
        except ContractViolation as violation:
            answers[number] = describe(violation) or {}
        else:
            accepted.append((number, snapshot))

    began = now_ns()
    landings = hub.land([snapshot for _, snapshot in accepted]) if accepted else []
    note_landings(zip((snapshot for _, snapshot in accepted), landings, strict=True), began)
    for (number, snapshot), landing in zip(accepted, landings, strict=True):
        named = {"world_id": snapshot.world_id, "version": snapshot.version}
        try:
            status = outcome_of(landing, snapshot)
            answers[number] = {"status": int(status), **named, "hash": landing.digest}
        except VersionConflict as conflict:
            answers[number] = (describe(conflict) or {}) | named
    for number, _ in batch:
        spool.write(json.dumps({"line": number} | answers[number]).encode() + b"\n")


def _drain(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        spool.seek(0)
        while chunk := spool.read(64 * 1024):
            yield chunk
