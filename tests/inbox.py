"""An HTTP server that keeps what is posted to it, and answers as the test wants."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Inbox:
    """What arrived: method, path and the JSON of each request; `status` is the answer to all.

    `silent`: while it is clear, requests wait for their answer.
    """

    url: str = ""
    status: int = 200
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self) -> list[Any]:
        """The JSON of each request that was answered with success."""
        return [body for _, _, body in self.requests]


@contextmanager
def inbox() -> Iterator[Inbox]:
    """One on a free port of the loopback, until the block is left."""
    box = Inbox()
    box.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            box.answers.wait(30)
            if box.status < 300:
                box.requests.append((self.command, self.path, json.loads(raw) if raw else None))
            self.send_response(box.status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        box.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield box
        finally:
            box.answers.set()
            server.shutdown()
            thread.join()
