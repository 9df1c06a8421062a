"""What a client does, step by step and without I/O: publish, drain, read."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from riskhub.client.errors import DigestMismatch, HubUnavailable, SpoolUnusable, UnexpectedAnswer
from riskhub.client.exchange import (
    Exchange,
    Flow,
    Outgoing,
    Work,
    fields_of,
    json_object,
    problem_of,
    refusal,
)
from riskhub.client.prepare import Preparation, Prepared
from riskhub.client.retry import is_transient
from riskhub.client.spool import Entry, Spool
from riskhub.digests import verify_digest
from riskhub.errors import BlobsUnavailable
from riskhub.snapshot import REF_FIELDS, format_instant
from riskhub.strict_json import Document

_log = logging.getLogger("riskhub.client")
BATCH = "/risk-hub/snapshots:batch"
# What is wrong with the one document. Any other refusal is about the token or the address, and
# would meet every document there is.
_ABOUT_THE_DOCUMENT = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


class Status(StrEnum):
    """What came of a publish."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    SPOOLED = "spooled"


@dataclass(frozen=True, slots=True)
class Published:
    """What came of one snapshot. `body` is what the hub stored; None while it is spooled."""

    status: Status
    world_id: str
    version: str
    digest: str
    body: Document | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A spooled snapshot that the hub refused for good: where it is now, and why."""

    path: Path
    problem: Document


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of a drain. `left` wait on: the hub went away, or another process drains."""

    landed: int
    rejected: tuple[Rejected, ...]
    left: int


@dataclass(frozen=True, slots=True)
class Flows:
    """The client's decisions, over what it was made with."""

    exchange: Exchange
    preparation: Preparation
    spool: Spool | None

    def publish(self, document: Document, world_id: str | None) -> Flow[Published]:
        """See `RiskHubClient.publish`."""
        prepared: Prepared = yield Work(
            partial(self.preparation.prepare, document, world_id, self.exchange.runtime.now())
        )
        entry = Entry(self.preparation.actor, self.preparation.stage, prepared)
        if self.spool is None:
            return _published(entry, (yield from self._land(entry)))
        if (yield Work(self.spool.names)):
            return (yield from self._publish_behind(self.spool, entry))
        try:
            response = yield from self._land(entry)
        except HubUnavailable as error:
            try:
                yield Work(partial(self.spool.append, entry))
            except SpoolUnusable as unusable:
                raise SpoolUnusable(f"{error}; and {unusable}") from error
            _log.warning("%s; spooled %s of %s", error, prepared.version, prepared.world_id)
            return _spooled(entry)
        return _published(entry, response)

    def drain(self) -> Flow[Drained]:
        """See `RiskHubClient.drain`."""
        if self.spool is None:
            return Drained(0, (), 0)
        return (yield from self._drain(self.spool, {}))

    def batch(self, lines: Sequence[Prepared]) -> Flow[list[Document]]:
        """See `RiskHubClient.publish_batch`."""
        body = b"".join(line.body + b"\n" for line in lines)
        headers = self._headers(self.preparation.actor, self.preparation.stage)
        response = yield from self.exchange.send(
            Outgoing("POST", BATCH, {}, headers | {"Content-Type": "application/x-ndjson"}, body),
            # A line that the hub couldn't land now; sent again, the others are duplicates.
            wanting=lambda answer: (
                answer.status_code == HTTPStatus.OK
                and any(is_transient(int(line.get("status", 0))) for line in _lines(answer))
            ),
        )
        if response.status_code != HTTPStatus.OK:
            raise refusal(response)
        answers = _lines(response)
        if [answer.get("line") for answer in answers] != list(range(1, len(lines) + 1)):
            raise UnexpectedAnswer(f"the bulk door gave no answer to each of {len(lines)} lines")
        return answers

    def read(self, world_id: str, door: str, params: Mapping[str, Any]) -> Flow[Document | None]:
        """The snapshot behind a door (``/latest``, ``/lookup``); None when there is no such one."""
        response = yield from self._get(world_id, door, params)
        problem = response.headers.get("Content-Type", "").startswith("application/problem+json")
        if response.status_code == HTTPStatus.NOT_FOUND and problem:
            return None
        if response.status_code != HTTPStatus.OK:
            raise refusal(response)
        return _verified(json_object(response), params)

    def page(
        self, world_id: str, params: Mapping[str, Any]
    ) -> Flow[tuple[Sequence[Document], str | None]]:
        """A page of snapshots, newest first, and the next page's cursor (None at the end)."""
        response = yield from self._get(world_id, "", params)
        if response.status_code != HTTPStatus.OK:
            raise refusal(response)
        found = json_object(response).get("snapshots")
        if not isinstance(found, list):
            raise UnexpectedAnswer(f"{response.request.url} answered no list of snapshots")
        following = response.links.get("next", {}).get("url")
        # Only its cursor: a link must not lead the token to another host.
        cursor = httpx.URL(following).params.get("cursor") if following else None
        return [_verified(document, params) for document in found], cursor

    def _get(self, world_id: str, door: str, params: Mapping[str, Any]) -> Flow[httpx.Response]:
        outgoing = Outgoing("GET", _path(world_id) + door, _query(params))
        return (yield from self.exchange.send(outgoing))

    def _land(self, entry: Entry, attempts: int | None = None) -> Flow[httpx.Response]:
        """What the hub answers to a snapshot; a blob that it lost is put back once."""
        prepared = entry.prepared
        outgoing = Outgoing(
            "POST",
            _path(prepared.world_id),
            headers=self._headers(entry.actor, entry.stage) | {"Content-Type": "application/json"},
            body=prepared.body,
        )
        response = yield from self.exchange.send(outgoing, attempts=attempts)
        if _misses_a_blob(response, prepared):
            yield Work(partial(self.preparation.offload_again, prepared.offloaded))
            response = yield from self.exchange.send(outgoing, attempts=attempts)
        return response

    def _publish_behind(self, spool: Spool, entry: Entry) -> Flow[Published]:
        """Queue up, then try to move the queue: the hub may be back."""
        name: str = yield Work(partial(spool.append, entry))
        answers: dict[str, httpx.Response] = {}
        # It doesn't wait for a long queue, and where the last one got no answer it asks once.
        until = self.exchange.runtime.monotonic() + self.exchange.retry.deadline_sec
        yield from self._drain(spool, answers, until=until, attempts=1)
        return _published(entry, answers[name]) if name in answers else _spooled(entry)

    def _drain(
        self,
        spool: Spool,
        answers: dict[str, httpx.Response],
        until: float = math.inf,
        attempts: int | None = None,
    ) -> Flow[Drained]:
        """Send what waits, until a moment. `answers` gets the latest one, by name."""
        landed, rejected = 0, list[Rejected]()
        try:
            with spool.draining() as ours:
                while ours and (names := (yield Work(spool.names))):
                    for name in names:
                        if self.exchange.runtime.monotonic() >= until:
                            raise HubUnavailable("the spool is too long for a publish to wait for")
                        refused = yield from self._send_spooled(spool, name, answers, attempts)
                        if refused:
                            rejected.append(refused)
                        else:
                            landed += 1
        except (HubUnavailable, BlobsUnavailable) as error:
            _log.warning("%s; the spool waits", error)
        left = yield Work(spool.names)
        return Drained(landed, tuple(rejected), len(left))

    def _send_spooled(
        self, spool: Spool, name: str, answers: dict[str, httpx.Response], attempts: int | None
    ) -> Flow[Rejected | None]:
        """Send one entry, and take it out of the queue for good; gives what the hub refused."""
        try:
            entry = yield Work(partial(spool.read, name))
        except ValueError as error:
            problem = {"detail": str(error)}
        else:
            response = yield from self._land(entry, attempts)
            if response.is_success:
                yield Work(partial(spool.remove, name))
            elif response.status_code not in _ABOUT_THE_DOCUMENT:
                raise refusal(response)
            answers.clear()  # of a long queue one body at a time
            answers[name] = response
            if response.is_success:
                return None
            problem = problem_of(response)
        path = yield Work(partial(spool.reject, name, problem))
        _log.error("the hub refused %s: %s", path, problem["detail"])
        return Rejected(path, problem)

    def _headers(self, actor: str, stage: str) -> dict[str, str]:
        return {"X-Actor": actor, "X-Stage": stage}


def _published(entry: Entry, response: httpx.Response) -> Published:
    prepared = entry.prepared
    if response.status_code not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise refusal(response, prepared.world_id, prepared.version)
    created = response.status_code == HTTPStatus.CREATED
    body = json_object(response)
    return Published(
        Status.CREATED if created else Status.DUPLICATE,
        prepared.world_id,
        prepared.version,
        str(body.get("hash", prepared.digest)),
        body,
    )


def _spooled(entry: Entry) -> Published:
    prepared = entry.prepared
    return Published(Status.SPOOLED, prepared.world_id, prepared.version, prepared.digest)


def _misses_a_blob(response: httpx.Response, prepared: Prepared) -> bool:
    if response.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
        return False
    return any(
        error.field.removesuffix("_ref") in prepared.offloaded
        and error.message.startswith(("is missing", "is altered"))
        for error in fields_of(problem_of(response))
    )


def _lines(response: httpx.Response) -> list[Document]:
    try:
        found = [json.loads(line) for line in response.content.splitlines()]
    except ValueError:
        found = [None]
    if not all(isinstance(line, dict) and isinstance(line.get("status"), int) for line in found):
        raise UnexpectedAnswer(f"{response.request.url} answered something that is no NDJSON")
    return found


def _verified(document: Document, params: Mapping[str, Any]) -> Document:
    # Behind a reference lie bytes that the hash may cover, and that aren't here.
    decidable = not params.get("expand") and not document.keys() & set(REF_FIELDS)
    if decidable and not verify_digest(document):
        named = f"version {document.get('version')!r} of {document.get('world_id')!r}"
        raise DigestMismatch(f"{named} is not what its hash {document.get('hash')} says")
    return document


def _path(world_id: str) -> str:
    # A world may be named "..", and that must stay a name.
    name = quote(world_id, safe=":") if world_id.strip(".") else world_id.replace(".", "%2E")
    return f"/risk-hub/worlds/{name}/snapshots"


def _query(params: Mapping[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError(f"{value} has no time zone: which instant is it?")
            return format_instant(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {name: text(value) for name, value in params.items() if value not in (None, False)}
