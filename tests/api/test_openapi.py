"""The app keeps the promises of its own OpenAPI document, whatever it is sent."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import schemathesis
from asgi import Api
from builders import NOW, Clock, raw_document
from databases import migrate
from exiting import load, opened_episode, rule, write_rules
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from stored import (
    DAY,
    candidate,
    contribution,
    metrics,
    outcome,
    stress_result,
    stressed,
    tail,
)

from api.app import create_app
from riskhub.digests import verify_digest
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.snapshot import parse_instant
from riskhub.store import Store, create_engine, open_store
from riskhub.store.exits import EngineStep
from riskhub.strict_json import LARGEST

TOKEN = "s3cret"
ASKED = {"Authorization": f"Bearer {TOKEN}"}


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: Any, value: Any) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


WORLDS = ("0", "a")
EPISODE = "0123456789abcdef0123"


BUDGET = {
    "budget_usd": 1_868.0,
    "stress_factor": 0.066,
    "mode": "enforce",
    "timestamp": int(NOW.timestamp()),
}


class Door:
    """Leads to the app of the test run, which the tests are made before."""

    app: FastAPI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


DOOR = Door()
# Only described here: nothing is asked of the store.
DESCRIBED = create_app(Settings(), Hub(Store(create_engine("sqlite://")), Settings()))
schema = schemathesis.openapi.from_dict(DESCRIBED.openapi())
schema.app = DOOR
# The token is ours to send; left out or wrong it is a subject of its own (test_api.py).
schema.config.generation.update(with_security_parameters=False)


@pytest.fixture(scope="module", autouse=True)
def _app(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[None]:
    settings = Settings(
        home=tmp_path_factory.mktemp("hub"),
        token=Settings(token=TOKEN).token,
        redis_url=redis_server,
    )
    with redis.Redis.from_url(redis_server) as state:
        state.flushdb()
        state.hset("quantum:portfolio:budget:0", mapping=BUDGET)
    engine = create_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    hub = Hub(open_store(settings.effective_database_url), settings, Clock())
    hub.land(
        [
            hub.accept(raw_document(version="0"), world_id=world, actor="a", stage="s")
            for world in WORLDS
        ]
    )
    compute(hub)
    tell_exit(hub, settings.home / "rules.yaml")
    DOOR.app = create_app(settings, hub)
    yield
    hub.store.close()


def compute(hub: Hub) -> None:
    """Numbers of every kind for what landed, as the pipeline would write them."""
    hub.store.add_scenario_book(
        "sha256:book",
        [{"scenario": "2008", "place": 0, "kind": "historical", "label": "2008", "definition": {}}],
    )
    days = [DAY + timedelta(number) for number in range(9)]
    for position, world_id in enumerate(WORLDS, 1):
        named = {"world_id": world_id, "version": "0", "stage": "s"}
        rows = {
            "risk_metrics": [metrics(position, contributions_level="0.99", **named)],
            "risk_tails": [tail(position), tail(position, method="monte_carlo", var_error=0.001)],
            "risk_contributions": [contribution(position, "BAC", 0.02)],
            "candidate_risk": [candidate(position, "0.99")],
            "snapshot_stress": [stressed(position, **named)],
            "stress_results": [
                stress_result(position, "2008", pnl=-0.38, ruined=False),
                stress_result(position, "own", "producer", measures={"pnl": -0.4}),
            ],
        }
        hub.store.write_days(rows, [DAY], replace=False)
        outcomes = {
            # Of landings of their own, which are gone since.
            "var_outcomes": [
                outcome(1_000 * position + number, day, 0.01 * number, world_id=world_id)
                for number, day in enumerate(days)
            ],
            "risk_tails": [tail(1_000 * position + number) for number in range(len(days))],
        }
        hub.store.write_days(outcomes, days, replace=False)


def tell_exit(hub: Hub, rules: Path) -> None:
    """One episode, as the exit engine would write it."""
    book = load(write_rules(rules, rule()))
    _, episode, signal = opened_episode(book, id=EPISODE)
    hub.store.write_exit_step(
        EngineStep([], [episode], [signal], [], 1),
        turn=0,
        writer="engine",
        rules_digest=book.digest,
        now=NOW,
    )


EVERY_OPERATION = pytest.mark.parametrize(
    "operation",
    [found.ok() for found in schema.get_all_operations()],
    ids=lambda operation: operation.label,
)
SEARCH = settings(
    max_examples=40,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    deadline=None,
)


@EVERY_OPERATION
def test_every_answer_is_one_that_is_documented(operation: APIOperation) -> None:
    @SEARCH
    @given(case=one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    def check(case: schemathesis.Case) -> None:
        # A document that fits the schema may still break the contract: see `mended`.
        left_out: list[Any] = [positive_data_acceptance]
        if case.media_type == "application/x-ndjson" and not isinstance(case.body, str):
            # On the wire a batch of any type is text again, and its lines are refused one by one.
            left_out.append(negative_data_rejection)
        hurried(case).call_and_validate(headers=ASKED, excluded_checks=left_out)

    check()


@EVERY_OPERATION
def test_what_the_document_describes_in_schemas_and_words_is_accepted(
    operation: APIOperation,
) -> None:
    """No check is left out: a 422 for one of these would be a rule that nobody was told."""
    statuses: Counter[int] = Counter()
    sizes: set[int] = set()

    @SEARCH
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE).map(mended))
    def check(case: schemathesis.Case) -> None:
        response = case.call_and_validate(headers=ASKED)
        statuses[response.status_code] += 1
        if response.status_code == 200:
            sizes.add(len(response.content))

    check()
    if operation.path.rpartition("/")[2] in HELD:
        assert max(sizes) > LEAST, sizes
    if operation.method == "post":
        assert statuses[200] + statuses[201] >= sum(statuses.values()) / 2, statuses


# -- what a schema can't say, and the document says in words ---------------------------------------


def mended(case: schemathesis.Case) -> schemathesis.Case:
    """A case that fits the schema, made to fit what is said beside it, and otherwise as it was."""
    if case.media_type == "application/json" and isinstance(case.body, dict):
        case.body = mended_snapshot(case.body, case.path_parameters["world_id"])
    hurried(case)
    query = {name: mended_parameter(name, value) for name, value in (case.query or {}).items()}
    if "episode_id" in case.path_parameters:
        case.path_parameters["episode_id"] = EPISODE  # which there is
    query.pop("cursor", None)  # "From the page before"
    held = HELD.get(case.path.rpartition("/")[2], {})
    if held:
        case.path_parameters["world_id"] = WORLDS[-1]
    for name in held.keys() & query.keys():
        if query[name] not in held[name]:
            query[name] = held[name][0]
    if case.path.endswith("/lookup"):  # "exactly one of the two"
        query.pop("as_of" if "version" in query else "version", None)
        if "version" in query:  # which is one, so that there is nothing to filter
            query = {name: query[name] for name in query.keys() - {"stage", "actor"}}
        else:
            query.setdefault("as_of", PAST)
    if case.query is not None:
        case.query = query
    return case


def hurried(case: schemathesis.Case) -> schemathesis.Case:
    """A case that asks to wait for what never comes, made not to."""
    if case.query and str(case.query.get("wait")).isdecimal():
        case.query["wait"] = 0
    return case


PAST = "2026-01-31T21:00:00Z"
INSTANTS = ("as_of", "as_of_from", "as_of_to", "known_at", "created_at")
# What there are numbers of; some of it is a 422 where it is not among these.
OF_SNAPSHOTS = {"stage": ("s",), "version": ("0",)}
HELD = {
    "risk": OF_SNAPSHOTS | {"method": ("historical", "monte_carlo"), "level": ("0.99",)},
    "contributions": OF_SNAPSHOTS,
    "stress": OF_SNAPSHOTS | {"scenario": ("2008", "own")},
    "backtests": {"stage": ("backtest",)},
    "backtests.svg": {"stage": ("backtest",)},
}
LEAST = 700  # bytes of an answer that has numbers, not just the snapshot they would be of


def mended_parameter(name: str, value: Any) -> Any:
    return instant(value) if name in INSTANTS else value


def mended_snapshot(document: dict[str, Any], world_id: str) -> dict[str, Any]:
    kept = {
        field: moderate(value)
        for field, value in document.items()
        # Here there is no blob store to give references; and of what would the hash be?
        if field != "hash" and not field.endswith("_ref")
    }
    for field in kept.keys() & set(INSTANTS):
        kept[field] = instant(kept[field])
    if "world_id" in kept:
        kept["world_id"] = world_id
    if "ttl_sec" in kept:
        kept["ttl_sec"] = int(kept["ttl_sec"])  # 900.0 is an integer to a schema
    kept["weights"] = summing_to_one(named(kept["weights"], "S"))
    if "covariance" in kept:
        variances = enumerate(kept["covariance"].values())
        kept["covariance"] = {f"S{n},S{n}": abs(value) for n, value in variances}
    if "realized_returns" in kept:
        kept["realized_returns"] = named(kept["realized_returns"], "R")
    for field, names in (
        ("constraints", {"candidate_id", "candidate_weight"}),
        ("provenance", {"actor", "stage"}),
    ):
        if field in kept:
            kept[field] = {name: kept[field][name] for name in kept[field].keys() - names}
    return kept


def instant(text: str) -> str:
    """RFC 3339 has leap seconds and lower-case letters, and the hub a clock."""
    try:
        return text if parse_instant(text) <= NOW else PAST
    except ValueError:
        return PAST


def moderate(value: Any) -> Any:
    """JSON's integers have no end; a float's do."""
    match value:
        case dict():
            return {key: moderate(item) for key, item in value.items()}
        case list():
            return [moderate(item) for item in value]
        case int() if abs(value) > LARGEST:
            return 1
    return value


def named(values: dict[str, Any], letter: str) -> dict[str, Any]:
    """Under names that are printable, not too long and without a comma."""
    return {
        key if 1 <= len(key) <= 128 and key.isprintable() and "," not in key else f"{letter}{n}": v
        for n, (key, v) in enumerate(values.items())
    }


def summing_to_one(weights: dict[str, float]) -> dict[str, float]:
    gross = sum(min(abs(weight), 1e9) for weight in weights.values())
    scaled = {key: min(abs(w), 1e9) / gross if gross > 0 else 0 for key, w in weights.items()}
    scaled[next(iter(scaled))] += 1 - math.fsum(scaled.values())
    return scaled


# -- examples --------------------------------------------------------------------------------------


def schemas_with_examples(part: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every schema of the document that has an example, and the example."""
    if isinstance(part, dict):
        for example in part.get("examples", []) if "type" in part else []:
            yield part, example
        if "schema" in part and "example" in part:
            yield part["schema"], part["example"]
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
        yield from schemas_with_examples(item)


def test_every_example_fits_its_schema() -> None:
    found = list(schemas_with_examples(DESCRIBED.openapi()))
    assert len(found) > 20
    for described, example in found:
        jsonschema.Draft202012Validator(described).validate(example)


def test_the_example_of_a_post_is_accepted_and_stored_as_the_example_of_an_answer(
    api: Api,
) -> None:
    described = DESCRIBED.openapi()["paths"]["/risk-hub/worlds/{world_id}/snapshots"]["post"]

    def examples(part: dict[str, Any]) -> list[Any]:
        found: list[Any] = part["content"]["application/json"]["schema"]["examples"]
        return found

    headers = {
        parameter["name"]: parameter["example"]
        for parameter in described["parameters"]
        if parameter["in"] == "header"
    }
    (world,) = [each["example"] for each in described["parameters"] if each["in"] == "path"]
    (offered,), (stored,) = (
        examples(described["requestBody"]),
        examples(described["responses"]["201"]),
    )
    # Of an app of its own: the search, too, may post an example.
    answer = api.post(f"/risk-hub/worlds/{world}/snapshots", json=offered, headers=headers)
    assert answer.status_code == 201, answer.text
    received = {"created_at": stored["created_at"]}
    assert answer.json() | received == stored
    assert verify_digest(stored)
