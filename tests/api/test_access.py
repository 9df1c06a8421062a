"""Who may do what at the HTTP edge, and what nobody learns from it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from answers import BATCH, READS, SNAPSHOTS, fields_of, problem_of
from asgi import Api, serving
from builders import ACTOR, WORLD, raw_document

from api.app import create_app
from riskhub.auth import Scope, TokenBook, TokenSpec, new_token
from riskhub.hub import Hub
from riskhub.settings import Settings

READER, WRITER, OPTIMIZER = "the readers token", "the writers token", "the optimizers token"
TOKENS = (
    TokenSpec(name="reader", secret=READER, scopes=frozenset({Scope.READ})),
    TokenSpec(name="writer", secret=WRITER, scopes=frozenset({Scope.WRITE})),
    TokenSpec(name="optimizer", secret=OPTIMIZER, actors=frozenset({ACTOR, "gateway"})),
)
GUARDED = [*READS, "/risk-hub/events", "/metrics"]


def bearing(token: str, **others: str) -> dict[str, bytes]:
    return {"Authorization": f"Bearer {token}".encode()} | {
        name.replace("_", "-"): value.encode() for name, value in others.items()
    }


def offers(api: Api, headers: dict[str, Any], **overrides: Any) -> list[httpx.Response]:
    """One snapshot, offered through each door."""
    line = raw_document(world_id=WORLD, **overrides)
    return [api.post(url, content=line, headers=headers) for url in (SNAPSHOTS, BATCH)]


@contextmanager
def guarded(hub: Hub, settings: Settings, **guard: Any) -> Iterator[Api]:
    with serving(create_app(settings.model_copy(update=guard), hub)) as api:
        yield api


@pytest.fixture
def api(hub: Hub, settings: Settings) -> Iterator[Api]:
    with guarded(hub, settings, tokens=TOKENS) as api:
        yield api


def auth_failures(hub: Hub) -> dict[str, float]:
    prefix = 'riskhub_auth_failures_total{reason="'
    lines = hub.telemetry.exposition([]).decode().splitlines()
    told = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return {line.partition('"')[0]: float(line.rpartition(" ")[2]) for line in told}


# -- tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["s3cret", "gehäuse"])
def test_only_the_token_opens_the_door(hub: Hub, settings: Settings, token: str) -> None:
    with guarded(hub, settings, token=Settings(token=token).token) as api:
        for wrong in ("", "Bearer", "Bearer ", f"Bearer {token}x", f"Basic {token}", token):
            headers = {"Authorization": wrong.encode()}
            for response in (
                *(api.get(url, headers=headers) for url in GUARDED),
                *offers(api, headers),
            ):
                assert problem_of(response, 401)
                assert response.headers["www-authenticate"] == "Bearer"
        right = bearing(token)
        assert [response.status_code for response in offers(api, right)] == [201, 200]
        for url in GUARDED:
            assert api.get(url, headers=right).status_code == 200


def test_signs_of_life_are_open(api: Api) -> None:
    for url in ("/healthz", "/readyz"):
        assert api.get(url).status_code == 200
        assert api.get(url, headers=bearing("wrong")).status_code == 200


def test_a_stranger_learns_nothing_of_what_else_is_wrong(api: Api) -> None:
    nowhere = "/risk-hub/worlds/a%20b/snapshots"
    for response in (
        api.post(nowhere, headers={"X-Actor": ""}),
        api.post(f"{SNAPSHOTS}?dry_run=perhaps", content=b"x" * 100_000),
        api.get(f"{nowhere}?limit=0"),
        api.get(f"{SNAPSHOTS}/lookup"),
        api.request("HEAD", SNAPSHOTS),
    ):
        assert response.status_code == 401


def test_a_scope_allows_what_it_says_and_nothing_else(api: Api, hub: Hub) -> None:
    for response in offers(api, bearing(READER)):
        assert "write" in problem_of(response, 403)["detail"]
    assert hub.store.head() == 0
    assert [response.status_code for response in offers(api, bearing(WRITER))] == [201, 200]
    for url in GUARDED:
        assert "read" in problem_of(api.get(url, headers=bearing(WRITER)), 403)["detail"]
        assert api.get(url, headers=bearing(READER)).status_code == 200
    rehearsal = f"{SNAPSHOTS}?dry_run=true"
    refused = api.post(rehearsal, content=raw_document(), headers=bearing(READER))
    assert problem_of(refused, 403)


def test_a_token_posts_only_as_the_actors_it_is_for(api: Api, hub: Hub) -> None:
    for response in offers(api, bearing(OPTIMIZER, X_Actor="governor")):
        assert fields_of(response, 403) == ["X-Actor"]
        assert "governor" not in response.text
    assert hub.store.head() == 0
    for actor in (ACTOR, "gateway"):
        answers = offers(api, bearing(OPTIMIZER, X_Actor=actor), version=actor)
        assert [response.status_code for response in answers] == [201, 200]
    # Whose snapshots it reads is another question.
    url = f"{SNAPSHOTS}/latest?actor=governor"
    assert api.get(url, headers=bearing(OPTIMIZER)).status_code == 404


def test_reads_may_be_left_open_and_writes_may_not(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings, tokens=TOKENS, read_auth=False) as api:
        for headers in ({}, bearing("wrong")):
            assert {response.status_code for response in offers(api, headers)} == {401}
        assert [response.status_code for response in offers(api, bearing(WRITER))] == [201, 200]
        for url in GUARDED:
            for headers in ({}, bearing("wrong"), bearing(WRITER)):
                assert api.get(url, headers=headers).status_code == 200


def test_without_a_token_everybody_may_do_everything(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings) as api:
        for headers in ({}, bearing("whatever")):
            assert {response.status_code for response in offers(api, headers)} <= {200, 201}
            assert {api.get(url, headers=headers).status_code for url in GUARDED} == {200}


def test_refusals_are_counted_by_their_reason(api: Api, hub: Hub) -> None:
    offers(api, bearing("wrong"))
    offers(api, {})
    for url in READS:
        api.get(url, headers=bearing("wrong"))
    offers(api, bearing(READER))
    offers(api, bearing(OPTIMIZER, X_Actor="governor"))
    offers(api, bearing(WRITER))
    assert auth_failures(hub) == {"token": 7, "scope": 2, "actor": 2}


# -- rotation -------------------------------------------------------------------------------------


def test_tokens_follow_one_another_without_a_restart(
    tmp_path: Path, hub: Hub, settings: Settings
) -> None:
    """Also hashed ones: what stands in the file opens nothing."""
    old, old_entry = new_token("old")
    new, new_entry = new_token("new")
    file = tmp_path / "tokens.yml"
    seconds = 0.0

    def write(*entries: TokenSpec) -> None:
        nonlocal seconds
        known = [entry.model_dump(mode="json", include={"name", "sha256"}) for entry in entries]
        file.with_suffix(".new").write_text(json.dumps(known))
        file.with_suffix(".new").replace(file)
        seconds += 2

    def opens(token: str | None) -> bool:
        status = api.get(SNAPSHOTS, headers=bearing(token or "")).status_code
        assert status in (200, 401)
        return status == 200

    write(old_entry)
    configured = settings.model_copy(update={"tokens_file": file})
    with serving(create_app(configured, hub)) as api:
        api.app.state.edge.tokens = TokenBook.of(configured, monotonic=lambda: seconds)
        assert (opens(old), opens(new)) == (True, False)
        assert not opens(old_entry.sha256)
        write(old_entry, new_entry)
        assert (opens(old), opens(new)) == (True, True)
        write(new_entry)
        assert (opens(old), opens(new)) == (False, True)
        file.write_text("- broken")
        seconds += 2
        assert (opens(old), opens(new)) == (False, True)
        told = api.get("/readyz").json()["tokens"]
        assert "tokens.yml" in told
        write()
        assert not any(map(opens, (old, new, "")))


# -- what nobody learns ---------------------------------------------------------------------------

SECRET = "s3cret-marker"
PAYLOAD = "payload-marker"
HEADER = "header-marker"
# Names of fields and of versions are for refusals to tell; what is in them is not.
HEADERS_THAT_TELL = bearing(SECRET, X_Actor=HEADER, X_Note=HEADER, Cookie=HEADER)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def tells(text: str) -> list[str]:
    return [marker for marker in (SECRET, PAYLOAD, HEADER) if marker in text]


def test_neither_refusals_nor_the_log_repeat_what_was_sent(
    hub: Hub, settings: Settings, everything_logged: pytest.LogCaptureFixture
) -> None:
    told: list[httpx.Response] = []
    token = TokenSpec(name="a", secret=SECRET)
    reader = TokenSpec(name="b", secret=f"{SECRET} 2", scopes=frozenset({Scope.READ}))
    bound = TokenSpec(name="c", secret=f"{SECRET} 3", actors=frozenset({ACTOR}))
    with guarded(hub, settings, tokens=(token, reader, bound)) as api:
        for authorization in (f"Bearer {SECRET}x", f"Basic {SECRET}", SECRET, f"Bearer {SECRET} 2"):
            told += offers(api, HEADERS_THAT_TELL | {"Authorization": authorization.encode()})
        told += offers(api, HEADERS_THAT_TELL | bearing(f"{SECRET} 3"))
        told += offers(api, HEADERS_THAT_TELL | {"X-Stage": b""})
        told += offers(api, HEADERS_THAT_TELL | {"X-Stage": f"{HEADER}\t".encode()})
        for overrides in (
            {"ttl_sec": PAYLOAD},
            {"weights": PAYLOAD},
            {"weights": {"A": PAYLOAD}},
            {"as_of": PAYLOAD},
            {"hash": PAYLOAD},
            {"created_at": PAYLOAD},
            {"covariance": PAYLOAD},
            {"covariance_ref": PAYLOAD},
            {"covariance_ref": f"file:///{PAYLOAD}"},
            {"provenance": {"actor": PAYLOAD}},
            {"constraints": {"candidate_id": "x", "candidate_weight": PAYLOAD}},
            {"stress": {"2008": {"pnl": PAYLOAD}}},
            {"version": f"{PAYLOAD}\n"},
        ):
            told += offers(api, HEADERS_THAT_TELL, **overrides)
        for body in (f'{{"a": {PAYLOAD}}}', f'"{PAYLOAD}"', f'{{"a": "{PAYLOAD}', f"\\{PAYLOAD}"):
            for url in (SNAPSHOTS, BATCH):
                told.append(api.post(url, content=body, headers=HEADERS_THAT_TELL))
    assert {response.status_code for response in told} == {200, 400, 401, 403, 422}
    for response in told:
        assert tells(response.text) == []
    assert tells(everything_logged.text) == []


def test_what_nobody_expected_is_a_problem_that_tells_nothing(
    hub: Hub,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    def land(_offered: Any) -> Any:
        try:
            raise LookupError(f"failing row contains {PAYLOAD}")
        except LookupError as error:
            raise ValueError(f"{PAYLOAD} of {HEADER} with {SECRET}") from error

    with guarded(hub, settings, tokens=(TokenSpec(name="a", secret=SECRET),)) as api:
        monkeypatch.setattr(hub.store, "land", land)
        for response in offers(api, HEADERS_THAT_TELL, constraints={"note": PAYLOAD}):
            problem = problem_of(response, 500)
            assert tells(json.dumps(problem)) == []
        monkeypatch.undo()
        assert post_with(api, bearing(SECRET)).status_code == 201  # and life goes on
    log = everything_logged.text + "".join(
        json.dumps(vars(record).get("exception")) for record in everything_logged.records
    )
    assert tells(log) == []
    # An operator finds where it was, and what it came of.
    for hint in ("ValueError", "LookupError", f"{Path(__file__).name}", "in land"):
        assert log.count(hint) >= 2, hint
    counted = 'method="POST",route="/risk-hub/worlds/{world_id}/snapshots",status="500"} 1.0'
    assert counted in hub.telemetry.exposition([]).decode()


def post_with(api: Api, headers: dict[str, bytes]) -> httpx.Response:
    return api.post(SNAPSHOTS, content=raw_document(), headers=headers)
