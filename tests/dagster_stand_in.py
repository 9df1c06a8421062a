"""A Dagster that says of itself what a test wants: its GraphQL, as far as we ask how it is."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class DagsterStandIn:
    """What it says; `ended` has (job, status, end as unix seconds), newest first."""

    url: str = ""
    ended: list[tuple[str, str, float]] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    started: int = 0
    daemons: dict[str, bool] = field(default_factory=dict)
    checks: list[tuple[str, str, str, str]] = field(default_factory=list)
    is_broken: bool = False
    asked: int = 0

    def answer(self, query: str) -> dict[str, Any]:
        self.asked += 1
        if self.is_broken:
            return {"errors": [{"message": "no such table: runs"}]}
        if "assetNodes" in query:
            return {"data": {"assetNodes": [self._node(*check) for check in self.checks]}}
        statuses = [
            {"daemonType": name, "required": True, "healthy": healthy}
            for name, healthy in self.daemons.items()
        ]
        statuses.append({"daemonType": "ASSET", "required": False, "healthy": False})
        return {
            "data": {
                "ended": {
                    "results": [
                        {"runId": f"r{n}", "jobName": job, "status": status, "endTime": at}
                        for n, (job, status, at) in enumerate(self.ended)
                    ]
                },
                "queued": {"results": [{"creationTime": at} for at in self.queued]},
                "started": {"results": [{"creationTime": 1.0}] * self.started},
                "instance": {"daemonHealth": {"allDaemonStatuses": statuses}},
            }
        }

    def _node(self, asset: str, check: str, status: str, severity: str) -> dict[str, Any]:
        last = {"status": status, "evaluation": {"severity": severity}} if status else None
        return {
            "assetKey": {"path": asset.split("/")},
            "assetChecksOrError": {
                "checks": [{"name": check, "executionForLatestMaterialization": last}]
            },
        }


@contextmanager
def dagster_stand_in() -> Iterator[DagsterStandIn]:
    """One on a free port of the loopback, until the block is left."""
    stand_in = DagsterStandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            raw = json.dumps(stand_in.answer(asked["query"])).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stand_in.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
