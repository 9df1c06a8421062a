"""The two clients: loops that do what the flows ask for, one blocking, one on an event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import httpx

from riskhub.blobs import BlobStore, open_blobs
from riskhub.client.errors import HubError
from riskhub.client.exchange import EXPECTED, Exchange, Flow, Pause, Step, Work
from riskhub.client.flows import Drained, Flows, Published
from riskhub.client.prepare import Preparation, Prepared
from riskhub.client.retry import RetryPolicy, Runtime
from riskhub.client.spool import Spool
from riskhub.errors import ContractViolation, FieldError
from riskhub.snapshot import DEFAULT_FUTURE_TOLERANCE
from riskhub.strict_json import Document

if TYPE_CHECKING:
    from riskhub.settings import Settings

DEFAULT_TIMEOUT = httpx.Timeout(10.0, connect=3.0)
DEFAULT_RETRY = RetryPolicy()
REAL = Runtime()
Transport = TypeVar("Transport", httpx.BaseTransport, httpx.AsyncBaseTransport)
_T = TypeVar("_T")


class _Client(Generic[Transport]):
    """What both clients are made with, and give before anything is sent."""

    def __init__(
        self,
        base_url: str,
        *,
        actor: str,
        stage: str,
        token: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        blobs: BlobStore | None = None,
        inline_cov_threshold: int = 4096,
        spool: Path | None = None,
        future_tolerance: timedelta = DEFAULT_FUTURE_TOLERANCE,
        transport: Transport | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        """A client of one hub, for one producer.

        Args:
            base_url: where the hub is, such as ``http://127.0.0.1:8000``.
            actor: who produces; goes out as ``X-Actor``.
            stage: such as ``backtest``, ``paper`` or ``live``; goes out as ``X-Stage``.
            token: the hub's bearer token, where it wants one.
            timeout: of each attempt: seconds, or an `httpx.Timeout` that tells phases apart.
            retry: how patient to be.
            blobs: where fields of more than `inline_cov_threshold` numbers are put, the store that
                the hub has too; without one everything goes inline.
            spool: a directory of this producer's own; what can't be sent waits there. Without one
                it is a `HubUnavailable`.
            future_tolerance: how far ahead of the clock `as_of` may be, as the hub has it.
            transport: httpx's, for tests and special networks.
            runtime: clocks, chance and sleep, for tests.

        Raises:
            HubError: the base URL is none.
            ContractViolation: actor or stage is nothing that a header can carry.
        """
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise HubError(f"the base URL {base_url!r} is none: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise HubError(f"the base URL {base_url!r} must begin with http://host or https://host")
        for header, value in (("X-Actor", actor), ("X-Stage", stage)):
            if not value.isprintable() or max(value, default="") > "ÿ" or value != value.strip():
                problem = "must be printable Latin-1 without spaces around, to go as a header"
                raise ContractViolation(FieldError(header, problem))
        timeout = timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout)
        self._runtime = runtime
        self._flows = Flows(
            Exchange(url, token, timeout, retry, runtime),
            Preparation(actor, stage, blobs, inline_cov_threshold, future_tolerance),
            Spool(spool) if spool else None,
        )
        self._http = self._open(transport)

    def _open(self, transport: Transport | None) -> Any:
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: "Settings", *, actor: str, stage: str, **others: Any) -> Self:
        """A client by the settings that the hub itself has: address, token, blobs, limits.

        Args:
            others: any argument of the constructor, instead of or beside the settings' own.
        """
        mine = {
            "base_url": settings.api_url,
            "token": settings.token.get_secret_value() if settings.token else None,
            "blobs": open_blobs(settings),
            "inline_cov_threshold": settings.inline_cov_threshold,
            "future_tolerance": timedelta(seconds=settings.future_tolerance_sec),
        }
        return cls(**(mine | {"actor": actor, "stage": stage} | others))

    def prepare(self, document: Document, *, world_id: str | None = None) -> Prepared:
        """What `publish` would send, without sending it: checked, offloaded, hashed.

        Raises:
            ContractViolation: naming each field that the hub would refuse.
        """
        return self._flows.preparation.prepare(document, world_id, self._runtime.now())


class RiskHubClient(_Client[httpx.BaseTransport]):
    """A producer's and consumer's way to the hub, blocking. Safe to use from several threads."""

    def _open(self, transport: httpx.BaseTransport | None) -> httpx.Client:
        return httpx.Client(transport=transport)

    def publish(self, document: Document, *, world_id: str | None = None) -> Published:
        """Land one snapshot, once and for ever; sent again while the hub can't be reached.

        Args:
            document: by the contract; `hash` may be left out. Not changed.
            world_id: its world; may be left out where the document names it.

        Returns:
            Created, duplicate (the same content was there), or spooled: kept on disk, behind
            whatever waits there already, to be sent by `drain` or by the next publish.

        Raises:
            ContractViolation: naming each field, found here or by the hub. Nothing was stored.
            VersionConflict: the version is there with other content; a correction is a new one.
            HubUnavailable: without a spool: no answer in time. Safe to publish again.
            HubRefused: `Unauthorized`, `Forbidden`, `TooLarge` or another refusal.
            SpoolUnusable: neither sent nor kept.
        """
        return self._run(self._flows.publish(document, world_id))

    def publish_batch(self, lines: Sequence[Prepared]) -> list[Document]:
        """Land many snapshots through the bulk door: one answer each, in order.

        An answer has a `status` (201, 200, or of 400 and more with `detail` and `errors`). A batch
        is never spooled: it is safe to publish again.

        Raises:
            HubUnavailable: no answer in time.
            HubRefused: the batch as a whole was refused.
        """
        return self._run(self._flows.batch(lines))

    def drain(self) -> Drained:
        """Send what the spool holds, in order, until it is empty or the hub can't be reached.

        Raises:
            HubRefused: the hub refuses whatever is sent (401, 403, 404): all waits on.
        """
        return self._run(self._flows.drain())

    def latest(
        self,
        world_id: str,
        *,
        stage: str | None = None,
        actor: str | None = None,
        expand: bool = False,
        include_expired: bool = False,
    ) -> Document | None:
        """The snapshot with the greatest `as_of`; None when there is none.

        Raises:
            HubUnavailable, HubRefused: as `publish` does.
            BlobMissing, BlobAltered: with `expand`: what a reference stands for is gone.
            DigestMismatch: the body isn't what its hash says.
        """
        params = _filters(stage, actor, expand, include_expired)
        return self._run(self._flows.read(world_id, "/latest", params))

    def lookup(
        self,
        world_id: str,
        *,
        version: str | None = None,
        as_of: datetime | str | None = None,
        known_at: datetime | str | None = None,
        stage: str | None = None,
        actor: str | None = None,
        expand: bool = False,
        include_expired: bool = False,
    ) -> Document | None:
        """One version, or the snapshot as of an instant; None when there is none.

        Args:
            known_at: as the hub would have answered then.
            stage, actor: only such ones; with `as_of` alone.

        Raises:
            ContractViolation: neither or both of `version` and `as_of`.
            HubUnavailable, HubRefused, DigestMismatch: as `latest` does.
        """
        params = {"version": version, "as_of": as_of, "known_at": known_at}
        params |= _filters(stage, actor, expand, include_expired)
        return self._run(self._flows.read(world_id, "/lookup", params))

    def list(
        self,
        world_id: str,
        *,
        stage: str | None = None,
        actor: str | None = None,
        as_of_from: datetime | str | None = None,
        as_of_to: datetime | str | None = None,
        expand: bool = False,
        include_expired: bool = False,
        page_size: int = 50,
    ) -> Iterator[Document]:
        """All snapshots, newest first, fetched page by page as they are asked for.

        Raises:
            HubUnavailable, HubRefused, DigestMismatch: as `latest` does.
        """
        params = _filters(stage, actor, expand, include_expired)
        params |= {"as_of_from": as_of_from, "as_of_to": as_of_to, "limit": page_size}
        cursor: str | None = None
        while True:
            page = self._flows.page(world_id, params | {"cursor": cursor})
            found, cursor = self._run(page)
            yield from found
            if cursor is None:
                return

    def close(self) -> None:
        """Close the connections; the spool needs no closing."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, flow: Flow[_T]) -> _T:
        with closing(flow):  # whatever happens here, its locks are let go
            try:
                step = next(flow)
                while True:
                    try:
                        came = self._do(step)
                    except EXPECTED as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def _do(self, step: Step) -> Any:
        match step:
            case Pause(seconds):
                return self._runtime.sleep(seconds)
            case Work(call):
                return call()
        return self._http.send(step)


class AsyncRiskHubClient(_Client[httpx.AsyncBaseTransport]):
    """`RiskHubClient` for an event loop; disks and blob stores are used in threads."""

    def _open(self, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=transport)

    async def publish(self, document: Document, *, world_id: str | None = None) -> Published:
        """See `RiskHubClient.publish`."""
        return await self._run(self._flows.publish(document, world_id))

    async def publish_batch(self, lines: Sequence[Prepared]) -> list[Document]:
        """See `RiskHubClient.publish_batch`."""
        return await self._run(self._flows.batch(lines))

    async def drain(self) -> Drained:
        """See `RiskHubClient.drain`."""
        return await self._run(self._flows.drain())

    async def latest(
        self,
        world_id: str,
        *,
        stage: str | None = None,
        actor: str | None = None,
        expand: bool = False,
        include_expired: bool = False,
    ) -> Document | None:
        """See `RiskHubClient.latest`."""
        params = _filters(stage, actor, expand, include_expired)
        return await self._run(self._flows.read(world_id, "/latest", params))

    async def lookup(
        self,
        world_id: str,
        *,
        version: str | None = None,
        as_of: datetime | str | None = None,
        known_at: datetime | str | None = None,
        stage: str | None = None,
        actor: str | None = None,
        expand: bool = False,
        include_expired: bool = False,
    ) -> Document | None:
        """See `RiskHubClient.lookup`."""
        params = {"version": version, "as_of": as_of, "known_at": known_at}
        params |= _filters(stage, actor, expand, include_expired)
        return await self._run(self._flows.read(world_id, "/lookup", params))

    async def list(
        self,
        world_id: str,
        *,
        stage: str | None = None,
        actor: str | None = None,
        as_of_from: datetime | str | None = None,
        as_of_to: datetime | str | None = None,
        expand: bool = False,
        include_expired: bool = False,
        page_size: int = 50,
    ) -> AsyncIterator[Document]:
        """See `RiskHubClient.list`."""
        params = _filters(stage, actor, expand, include_expired)
        params |= {"as_of_from": as_of_from, "as_of_to": as_of_to, "limit": page_size}
        cursor: str | None = None
        while True:
            page = self._flows.page(world_id, params | {"cursor": cursor})
            found, cursor = await self._run(page)
            for document in found:
                yield document
            if cursor is None:
                return

    async def aclose(self) -> None:
        """Close the connections; the spool needs no closing."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[_T]) -> _T:
        with closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        came = await self._do(step)
                    except EXPECTED as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    async def _do(self, step: Step) -> Any:
        match step:
            case Pause(seconds):
                return await self._runtime.async_sleep(seconds)
            case Work(call):
                return await asyncio.to_thread(call)
        return await self._http.send(step)


def _filters(
    stage: str | None, actor: str | None, expand: bool, include_expired: bool
) -> dict[str, Any]:
    return {"stage": stage, "actor": actor, "expand": expand, "include_expired": include_expired}
