"""How the API is served: uvicorn on one port, with one process or several.

What uvicorn leaves open is closed here: the size of a request's head and the time it may take, the
exit code after an orderly end, workers that outlive their parent. `python -m api.server` serves
with the settings of the environment.
"""

import asyncio
import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess

from api.edge import DRAIN
from api.problems import MEDIA_TYPE, problem
from riskhub import logs, traces
from riskhub.errors import RiskHubError
from riskhub.settings import Settings, load_settings
from riskhub.telemetry import share

APP = "api.app:app_from_environment"
# A worker that imports on a busy machine takes seconds before it answers its supervisor.
_WORKER_ANSWERS_WITHIN_SEC = 30
_ORPHAN_ENDS_WITHIN_SEC = 5
_LINGER_SEC = 2.0
_GC_THRESHOLDS = (50_000, 20, 100)


class Config(uvicorn.Config):
    """How one process serves. Travels to each worker, and is loaded there."""

    def __init__(self, settings: Settings, app: str, metrics: Path | None) -> None:
        super().__init__(
            app,
            factory=True,
            host=settings.api_host,
            port=settings.api_port,
            workers=settings.api_workers,
            loop="uvloop",
            http="api.server:BoundedHttp",
            ws="none",
            log_config=None,  # its loggers write where all of ours do
            log_level="warning",
            access_log=False,  # ours knows worlds and routes, and is cheaper: api.request_log
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=settings.drain_sec,
            timeout_worker_healthcheck=_WORKER_ANSWERS_WITHIN_SEC,
        )
        self.settings = settings
        self._metrics = metrics

    def load(self) -> None:
        """Make the app; in the process that serves it, before it does."""
        logs.configure(self.settings)
        traces.configure("api")
        share(self._metrics)
        parent = multiprocessing.parent_process()
        if parent is not None:
            ending = (parent, self.settings.drain_sec)
            threading.Thread(target=_end_with, args=ending, name="orphan", daemon=True).start()
        try:
            super().load()
        except RiskHubError as error:
            if parent is None:
                raise
            sys.exit(f"riskhub: {error}")  # to be started again: a database may be away
        # Looking for cycles, the collector walks every object there is, and all requests wait for
        # it meanwhile. Most objects are modules, routes and schemas that live as long as we do:
        # frozen, they are walked no more. The rest dies by its reference count, nearly all of it,
        # so there is little to find, and looking less often costs little memory.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, with limits to the head of a request: its size, and the time it takes.

    The time runs from the connection, or from the first byte after an answer, to the end of the
    head; an idle connection that has been answered is closed by uvicorn's keep-alive timeout.
    """

    config: Config

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_bytes = config.settings.max_header_bytes
        self._timeout_sec = config.settings.header_timeout_sec
        self._head_bytes = 0  # of the head, and later the trailer, that were parsed
        self._unparsed_bytes = 0  # since the parser last got anywhere: it keeps what it waits for
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """What uvicorn calls for each connection when it drains."""
        if drain := self.app_state.get(DRAIN):
            drain()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > self._max_bytes:
            self._refuse(*self._too_large())
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser has given up, also by `_count`."""
        if self._head_bytes > self._max_bytes:
            self._refuse(*self._too_large())
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _count(self, parsed: int) -> None:
        self._head_bytes += parsed
        if self._head_bytes > self._max_bytes:
            raise ValueError("the head is too large")  # ends the parser's work

    def _too_large(self) -> tuple[HTTPStatus, str]:
        detail = f"the head of the request is larger than {self._max_bytes} bytes"
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self._timeout_sec, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        detail = f"the head of the request did not arrive within {self._timeout_sec:g} s"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer, unless that would run into the app's answer to a request before, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_waiting()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
        body = json.dumps(problem(status, detail)).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [b"%s: %s" % header for header in headers]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        # Were the connection closed while the client still sends, the answer would be lost on it.
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_SEC, self.transport.close)


class _Workers(Multiprocess):
    def terminate_all(self) -> None:
        # Else the system goes on taking connections for us while the workers finish.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def serve(settings: Settings, app: str = APP) -> None:
    """Serve an app until SIGTERM or SIGINT, then answer what is in flight and return.

    Args:
        app: ``module:factory``, called in each process that serves.
    """
    logs.configure(settings)
    # uvicorn passes the signal on to us when all is answered, and that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        if settings.api_workers == 1:
            server = uvicorn.Server(Config(settings, app, metrics=None))
            server.run()
            if not server.started:
                sys.exit(STARTUP_FAILURE)
            return
        # New for each server, so never shared; not in `home`, which other machines may mount.
        with tempfile.TemporaryDirectory(prefix="riskhub-metrics-") as metrics:
            config = Config(settings, app, Path(metrics))
            workers = _Workers(config, [config.bind_socket()])
            workers.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
            sys.exit(STARTUP_FAILURE)


def _end_with(parent: BaseProcess, drain_sec: int) -> None:
    """Nobody would end us once our parent was killed, and its successor wants the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain_sec + _ORPHAN_ENDS_WITHIN_SEC)
    os._exit(1)


if __name__ == "__main__":
    serve(load_settings())
