"""Exit signals over HTTP: what was told, and who has seen it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from answers import fields_of, problem_of, refuses_for_now
from asgi import Api, serving
from builders import NOW, WORLD, Clock
from exiting import STAGE, START, load, opened_episode, rule, write_rules

from api.app import create_app
from riskhub.auth import Scope, TokenSpec
from riskhub.errors import StoreUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store.exits import EngineStep

SIGNALS = "/risk-hub/exit-signals"
UNKNOWN = "0123456789abcdef0123"


@pytest.fixture
def tell(hub: Hub, tmp_path: Path) -> Any:
    """Writes episodes as the engine does; gives their ids."""
    book = load(write_rules(tmp_path / "rules.yaml", rule(), mode="enforce"))
    turn = 0

    def write(*changes: dict[str, Any]) -> list[str]:
        nonlocal turn
        ids = []
        for each in changes:
            _, episode, signal = opened_episode(book, **each)
            step = EngineStep([], [episode], [signal], [], 1)
            turn = hub.store.write_exit_step(
                step, turn=turn, writer="engine", rules_digest=book.digest, now=NOW
            )
            ids.append(episode["id"])
        return ids

    return write


def listed(api: Api, query: str = "") -> list[str]:
    response = api.get(SIGNALS + query)
    assert response.status_code == 200, response.text
    return [row["episode_id"] for row in response.json()["exit_signals"]]


def test_an_episode_is_told_with_its_evidence_and_its_signals(api: Api, tell: Any) -> None:
    (episode_id,) = tell({})
    (found,) = api.get(SIGNALS).json()["exit_signals"]
    assert found == api.get(f"{SIGNALS}/{episode_id}").json()
    evidence = found.pop("evidence")
    assert (evidence["opened"]["version"], evidence["rule"]["enter"]) == ("v0", 0.08)
    assert found == {
        "episode_id": episode_id,
        "rule": "es-limit",
        "kind": "es",
        "world_id": WORLD,
        "stage": STAGE,
        "action": "reduce",
        "target_fraction": pytest.approx(0.5),
        "severity": "critical",
        "mode": "enforce",
        "opened_at": "2026-01-05T21:00:00.000000Z",
        "closed_at": None,
        "closed_because": None,
        "value": 0.1,
        "worst": 0.1,
        "acknowledged_at": None,
        "acknowledged_by": None,
        "signals": [
            {
                "signal_id": f"{episode_id}:1",
                "signal": "opened",
                "why": "ES 0.99 historical is 10.00%, the threshold is 8.00%",
                "at": "2026-01-05T21:00:00.000000Z",
                "streamed_at": None,
            }
        ],
    }


def test_episodes_are_listed_by_what_is_asked_in_pages(api: Api, tell: Any) -> None:
    ids = tell(
        *(
            {
                "id": f"{number:020x}",
                "world_id": f"w{number % 2}",
                "rule": f"r{number}",
                "opened_at": START + timedelta(days=number),
                "closed_at": None if number == 4 else START + timedelta(days=number, hours=1),
            }
            for number in range(5)
        )
    )
    newest_first = ids[::-1]
    assert listed(api) == newest_first
    assert listed(api, "?world=w1") == [ids[3], ids[1]]
    assert listed(api, "?rule=r2") == [ids[2]]
    assert listed(api, "?open=true") == [ids[4]]
    assert listed(api, "?open=false") == newest_first[1:]
    assert listed(api, "?since=2026-01-08T22:00:00Z") == [ids[4], ids[3]]
    assert listed(api, f"?stage={STAGE}&world=w0") == [ids[4], ids[2], ids[0]]

    walked, url = [], f"{SIGNALS}?limit=2"
    while url:
        response = api.get(url)
        walked += [row["episode_id"] for row in response.json()["exit_signals"]]
        link = response.headers.get("link", "")
        url = link[1:].partition(">")[0] if link else ""
    assert walked == newest_first


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("world=a%20b", "world"),
        ("world=", "world"),
        ("open=perhaps", "open"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("cursor=2026-01-08T22:00:00Z_7", "cursor"),
        ("cursor=x", "cursor"),
        ("worlds=a", "worlds"),
    ],
)
def test_a_question_that_is_none_is_refused_by_name(api: Api, query: str, field: str) -> None:
    assert fields_of(api.get(f"{SIGNALS}?{query}"), 422) == [field]


def test_who_acknowledged_first_stays(api: Api, tell: Any, clock: Clock) -> None:
    (episode_id,) = tell({})
    url = f"{SIGNALS}/{episode_id}/ack"
    first = api.post(url, headers={"X-Actor": "desk-1"})
    assert first.status_code == 200
    clock.advance(60)
    again = api.post(url, headers={"X-Actor": "desk-2"})
    assert again.status_code == 200
    assert first.json() == again.json() == api.get(f"{SIGNALS}/{episode_id}").json()
    assert again.json()["acknowledged_by"] == "desk-1"
    assert again.json()["acknowledged_at"] == "2026-01-31T21:05:00.000000Z"
    assert again.json()["closed_at"] is None


def test_an_acknowledgement_says_who_and_of_what(api: Api, tell: Any) -> None:
    (episode_id,) = tell({})
    by_nobody = {"X-Actor": ""}
    assert fields_of(api.post(f"{SIGNALS}/{episode_id}/ack", headers=by_nobody), 400) == ["X-Actor"]
    too_long = {"X-Actor": "a" * 129}
    assert fields_of(api.post(f"{SIGNALS}/{episode_id}/ack", headers=too_long), 422) == ["X-Actor"]
    me = {"X-Actor": "me"}
    assert UNKNOWN in problem_of(api.post(f"{SIGNALS}/{UNKNOWN}/ack", headers=me), 404)["detail"]
    assert fields_of(api.post(f"{SIGNALS}/nope/ack", headers=me), 422) == ["episode_id"]
    problem_of(api.get(f"{SIGNALS}/{UNKNOWN}"), 404)
    assert fields_of(api.get(f"{SIGNALS}/nope"), 422) == ["episode_id"]


def test_reading_takes_a_token_that_reads_and_acknowledging_one_that_writes_as_who_it_says(
    hub: Hub, settings: Settings, tell: Any
) -> None:
    (episode_id,) = tell({})
    tokens = (
        TokenSpec(name="reader", secret="the readers token", scopes=frozenset({Scope.READ})),
        TokenSpec(name="desk", secret="the desks token", actors=frozenset({"desk-1"})),
    )
    guarded = settings.model_copy(update={"tokens": tokens})
    url = f"{SIGNALS}/{episode_id}/ack"
    with serving(create_app(guarded, hub)) as api:
        assert api.get(SIGNALS).status_code == 401
        reader, desk = (
            {"Authorization": f"Bearer the {who} token", "X-Actor": "desk-1"}
            for who in ("readers", "desks")
        )
        assert api.get(SIGNALS, headers=reader).status_code == 200
        assert api.post(url, headers=reader).status_code == 403
        assert fields_of(api.post(url, headers=desk | {"X-Actor": "desk-2"}), 403) == ["X-Actor"]
        assert api.post(url, headers=desk).status_code == 200


def test_without_the_database_it_is_said(
    api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("away")

    for name in ("exit_episodes", "exit_episode", "acknowledge"):
        monkeypatch.setattr(hub.store, name, away)
    me = {"X-Actor": "me"}
    assert "away" in refuses_for_now(api.get(SIGNALS))
    assert "away" in refuses_for_now(api.get(f"{SIGNALS}/{UNKNOWN}"))
    assert "away" in refuses_for_now(api.post(f"{SIGNALS}/{UNKNOWN}/ack", headers=me))


def test_answers_are_what_the_document_says(api: Api, tell: Any) -> None:
    tell({}, {"signals": 2, "closed_at": NOW, "closed_because": "back"})
    described = api.get("/openapi.json").json()["paths"][SIGNALS]["get"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.validate(api.get(SIGNALS).json(), schema)
