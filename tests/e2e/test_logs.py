"""What processes say in production's form: lines of JSON, and no secret, whatever happens."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from builders import HEADERS, WORLD, snapshot_document
from served import api_process, environment, log_of, migrate_home

TOKEN = "t0ken-of-the-hub-itself"
OFFERED = "0ffered-by-a-stranger"
PASSWORD = "p4ss/word@of-a-server"
JSON = {"RISKHUB_LOG_FORMAT": "json", "RISKHUB_ACCESS_LOG": "true", "RISKHUB_TOKEN": TOKEN}
SNAPSHOTS = f"/risk-hub/worlds/{WORLD}/snapshots"


def lines_of(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def assert_tells_no_secret(log: str) -> None:
    for secret in (TOKEN, OFFERED, PASSWORD, PASSWORD.replace("/", "%2F").replace("@", "%40")):
        assert secret not in log


def test_the_workers_of_an_api_log_each_request_and_no_token(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    migrate_home(tmp_path)
    port = free_port()
    with (
        api_process(tmp_path, port, RISKHUB_API_WORKERS="2", **JSON),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        for offered in (f"Bearer {TOKEN}", f"Bearer {OFFERED}", f"Basic {OFFERED}", OFFERED):
            client.post(
                SNAPSHOTS,
                params={} if offered.endswith(TOKEN) else {"token": OFFERED},
                json=snapshot_document(),
                headers={"Authorization": offered, "Cookie": OFFERED, "X-Request-Id": "mine"},
            )
        client.get(f"/{OFFERED}")
    log = log_of(tmp_path)
    assert_tells_no_secret(log)
    mine = [line for line in lines_of(log) if line.get("request_id") == "mine"]
    assert [line["status"] for line in mine] == [201, 401, 401, 401]
    assert {(line["event"], line["world"], line["method"]) for line in mine} == {
        ("request", WORLD, "POST")
    }


def ended(home: Path, *command: str, **settings: str) -> str:
    """What a process says that can't go on, all of it."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment(home, **settings),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_what_ends_a_process_tells_no_password(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    escaped = PASSWORD.replace("/", "%2F").replace("@", "%40")
    of_a_database = {"RISKHUB_DATABASE_URL": f"postgresql://hub:{escaped}@{nowhere}/hub"}
    malformed = {"RISKHUB_DATABASE_URL": f"postgresql:/hub:{escaped}@{nowhere}"}
    of_redis = {"RISKHUB_REDIS_URL": f"redis://:{escaped}@{nowhere}/0"}
    migrate_home(tmp_path)
    kafka = {
        "RISKHUB_CONTROLBUS_BROKERS": nowhere,
        "RISKHUB_CONTROLBUS__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "RISKHUB_CONTROLBUS__SASL_USERNAME": "hub",
        "RISKHUB_CONTROLBUS__SASL_PASSWORD": PASSWORD,
    }
    for command, settings in (
        (("api.server",), of_a_database),
        (("riskhub", "worker", "--once"), of_a_database),
        (("riskhub", "worker", "--once"), malformed),
        (("riskhub", "governor", "--once"), of_redis),
        (("riskhub", "worker", "--once"), kafka),
        (("api.server",), {"RISKHUB_TOKENS": f'["{OFFERED}"]'}),
        (("api.server",), {"RISKHUB_API_PORT": OFFERED, "RISKHUB_TOKEN": f"{TOKEN} "}),
    ):
        said = ended(tmp_path, *command, **{**JSON, **settings})
        assert said, command
        assert_tells_no_secret(said)
