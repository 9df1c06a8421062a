"""The published schemas: what the hub tells fits them, and they only ever grow."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import NOW, WORLD, accept
from compatibility import Schema, breaks, breaks_in, closed
from exiting import ES, landed, load, measured, rule, seen, write_rules
from hypothesis import given
from hypothesis import strategies as st
from stored import metrics, tail, verdict

from riskhub.controlbus.events import (
    EVENT_VERSION,
    SNAPSHOT_UPDATED,
    TYPES,
    EventMalformed,
    NewEvent,
    OutboxEvent,
    landing_event,
    metrics_updated,
    parse,
    quarantined,
    schema_of,
    violation,
)
from riskhub.exits.engine import State, decide
from riskhub.exits.live import event_of
from riskhub.exits.observation import Observation

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
ENVELOPE = "cloudevent"
FILES = sorted(SCHEMAS.glob("*.json"))


def read(name: str, version: int = EVENT_VERSION) -> Schema:
    schema: Schema = json.loads((SCHEMAS / f"{name}.v{version}.json").read_text())
    return schema


def versions_of(name: str) -> list[Schema]:
    """All of them, in order; one that is missing in between is an error."""
    count = len(list(SCHEMAS.glob(f"{name}.v*.json")))
    return [read(name, number) for number in range(1, count + 1)]


VALIDATORS = {
    name: jsonschema.Draft202012Validator(
        read(name), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for name in (*TYPES, ENVELOPE)
}


def in_outbox(new: NewEvent) -> OutboxEvent:
    return OutboxEvent(
        sequence=7,
        type=new.type,
        key=new.key,
        id=new.id,
        subject=new.subject,
        occurred_at=new.occurred_at,
        correlation_id=new.correlation_id or new.id,
        data=new.stored_data(),
    )


def check(event: OutboxEvent | NewEvent) -> dict[str, Any]:
    """Hold it against the schemas of its envelope and its data; gives the data."""
    raw = (in_outbox(event) if isinstance(event, NewEvent) else event).cloud_event()
    document = json.loads(raw)
    VALIDATORS[ENVELOPE].validate(document)
    VALIDATORS[event.type].validate(document["data"])
    assert document["dataschema"] == read(event.type)["$id"]
    assert parse(raw).data == document["data"]
    data: dict[str, Any] = document["data"]
    return data


# -- what is told fits ----------------------------------------------------------------------------

numbers = st.floats(-1e9, 1e9)
names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1).filter(
    lambda name: "," not in name and len(name) <= 128
)
snapshots = st.fixed_dictionaries(
    {
        "version": names,
        "as_of": st.sampled_from(["2026-01-31T21:00:00Z", "2026-01-31T16:00-05:00"]),
    },
    optional={
        "covariance": st.dictionaries(names, st.floats(0, 1), min_size=1).map(
            lambda variances: {f"{each},{each}": x for each, x in variances.items()}
        ),
        "realized_returns": st.dictionaries(names, st.lists(numbers, min_size=1), min_size=1),
        "stress": st.dictionaries(names, st.dictionaries(names, numbers)),
        "constraints": st.dictionaries(
            names.map(lambda name: f"x{name}"), st.none() | names | numbers | st.lists(names)
        ),
        "ttl_sec": st.integers(1, 86_400),
        "provenance": st.dictionaries(names.map(lambda name: f"x{name}"), names),
        "created_at": st.sampled_from(["2026-01-31T21:00:00Z"]),
    },
)


@given(document=snapshots)
def test_a_landing_fits_whatever_lands(document: dict[str, Any]) -> None:
    snapshot = accept(document | {"weights": {"A": 1.5, "B": -0.5}})
    data = check(
        landing_event(3, snapshot.world_id, snapshot.version, NOW, snapshot.digest, snapshot.body)
    )
    assert json.loads(snapshot.body).items() <= data.items()


def test_a_reference_fits() -> None:
    snapshot = accept()
    body = snapshot.body[:-1] + ',"covariance_ref":"file:abc.json"}'
    check(landing_event(3, WORLD, "v1", NOW, snapshot.digest, body))


def test_entering_the_quarantine_fits() -> None:
    check(quarantined(verdict(1, accepted=False, reasons=["one", "two"]), NOW))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {
            **dict.fromkeys(["volatility", "max_drawdown", "current_drawdown"]),
            **dict.fromkeys(["returns_digest", "covariance_digest"]),
            "unavailable": "there are no returns",
            "n": 0,
        },
    ],
)
def test_numbers_fit_also_those_that_are_not_there(change: dict[str, Any]) -> None:
    tails = [] if "unavailable" in change else [tail(1), tail(1, method="normal", source=None)]
    data = check(metrics_updated(metrics(1, **change), tails, NOW))
    assert len(data["tails"]) == len(tails)


@given(notional=numbers, budget=st.floats(0, 1e9), mode=st.sampled_from(["shadow", "enforce"]))
def test_a_violation_fits(notional: float, budget: float, mode: str) -> None:
    over = abs(notional) - budget
    check(
        violation(
            {
                "at": NOW,
                "symbol": "BTCUSDT",
                "position_notional": notional,
                "budget_usd": budget,
                "over_budget": over,
                "mode": mode,
            }
        )
    )


def test_signals_of_a_whole_episode_fit(tmp_path: Path) -> None:
    book = load(write_rules(tmp_path / "rules.yaml", ES | {"escalate": 0.25}))
    states: dict[str, State] = {}
    told = []
    for number, es in enumerate((0.09, 0.2, None, 0.01)):
        observation = seen(number, es)
        at = NOW + timedelta(days=number)
        decision = decide(book, observation, states, at)
        states.update(decision.states)
        told += [check(event_of(signal)) for signal in decision.signals]
    assert [data["signal"] for data in told] == ["opened", "updated", "closed"]


def test_signals_of_every_kind_of_rule_fit(tmp_path: Path) -> None:
    scenario = {"kind": "stress_loss", "scenarios": ["*"], "enter": 0.3, "leave": 0.2}
    zone = {"kind": "model_zone", "method": "historical", "level": 0.99}
    zone |= {"enter": "red", "leave": "green"}
    rules = [
        rule(id="es"),
        rule(id="var", kind="var", method="historical", level=0.99, enter=0.04, leave=0.03),
        rule(id="drawdown", kind="drawdown", enter=0.005, leave=0.001),
        rule(id="largest", kind="concentration", measure="largest", enter=0.5, leave=0.4),
        rule(id="stress", **scenario),
        rule(id="zone", **zone),
        rule(id="stale", kind="stale", enter="critical", leave="stale"),
        rule(id="expired", kind="expired", enter=1.5, leave=1.0),
    ]
    book = load(write_rules(tmp_path / "rules.yaml", *rules))
    at = NOW + timedelta(days=1)
    red = {
        **{"zone": "red", "exceedances": 12, "observations": 250, "multiplier": 4.0},
        **{"day": NOW.date(), "window": 250, "code_version": "riskhub/0"},
    }
    observation = Observation(
        WORLD,
        "paper",
        measured(0, 0.2, pnl={"2008": -0.5}),
        landed(),
        {("historical", "0.99"): red},
    )
    decided = decide(book, observation, {}, at)
    told = {check(event_of(signal))["kind"] for signal in decided.signals}
    assert told == {each["kind"] for each in rules}


# -- what is published ----------------------------------------------------------------------------


def test_each_type_and_the_envelope_have_a_schema_and_nothing_else_has() -> None:
    found = {re.sub(r"\.v[0-9]+\.json$", "", file.name) for file in FILES}
    assert found == {*TYPES, ENVELOPE}
    for event_type in TYPES:
        assert read(event_type)["$id"] == schema_of(event_type)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_schema_is_well_formed_open_and_described(file: Path) -> None:
    schema = json.loads(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    name, _, version = file.stem.rpartition(".v")
    assert schema["$id"] == f"urn:riskhub:schema:{name}:{version}"
    assert list(closed(schema)) == []
    if name != ENVELOPE:
        assert {"event_version", "idempotency_key", "correlation_id"} <= set(schema["required"])
    for field, each in schema["properties"].items():
        assert "description" in each or field in ("specversion", "datacontenttype", "data"), field


@pytest.mark.parametrize("name", [*TYPES, ENVELOPE])
def test_every_version_may_follow_all_before_it(name: str) -> None:
    assert list(breaks_in(versions_of(name))) == []


def test_a_published_schema_is_never_edited() -> None:
    """Where this fails, publish the change as the next version, in a file of its own."""
    lines = (SCHEMAS / "SHA256SUMS").read_text().splitlines()
    noted = {name: noted for noted, name in (line.split("  ") for line in lines)}
    assert noted == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in FILES}


# -- what may follow what -------------------------------------------------------------------------

BASE: Schema = {
    "type": "object",
    "required": ["n", "kind"],
    "additionalProperties": True,
    "properties": {
        "n": {"type": "integer", "minimum": 1},
        "x": {"type": ["number", "null"]},
        "kind": {"enum": ["a", "b"]},
        "list": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["y"],
                "additionalProperties": True,
                "properties": {"y": {"type": "number"}},
            },
        },
        "by_name": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
LEAST = {"n": 1, "kind": "a"}


def changed(change: Callable[[Any], Any]) -> Schema:
    schema: Schema = json.loads(json.dumps(BASE))
    change(schema)
    return schema


def fields(schema: Schema) -> Any:
    return schema["properties"]


GOOD: dict[str, Callable[[Any], Any]] = {
    "an optional field more": lambda s: fields(s).update(new={"type": "string"}),
    "an optional field less": lambda s: fields(s).pop("x"),
    "one more in a list": lambda s: fields(s)["list"]["items"]["properties"].update(z={}),
    "other words": lambda s: s.update(title="t", description="d", examples=[LEAST]),
    "another order": lambda s: (s["required"].reverse(), fields(s)["kind"]["enum"].reverse()),
}
# Each with data that one of the two takes, and the other does not.
BAD: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "a required field more": (lambda s: s["required"].append("x"), LEAST),
    "a required field less": (lambda s: s["required"].remove("n"), {"kind": "a"}),
    "a narrower type": (lambda s: fields(s)["x"].update(type="number"), LEAST | {"x": None}),
    "a wider type": (lambda s: fields(s)["n"].update(type="number"), LEAST | {"n": 1.5}),
    "a type less": (lambda s: fields(s)["x"].pop("type"), LEAST | {"x": "text"}),
    "an enum value more": (lambda s: fields(s)["kind"]["enum"].append("c"), {"n": 1, "kind": "c"}),
    "an enum value less": (lambda s: fields(s)["kind"]["enum"].pop(), {"n": 1, "kind": "b"}),
    "a lower bound": (lambda s: fields(s)["n"].update(minimum=0), {"n": 0, "kind": "a"}),
    "a new bound": (lambda s: fields(s)["n"].update(maximum=9), {"n": 10, "kind": "a"}),
    "a pattern": (lambda s: fields(s)["kind"].update(pattern="^a"), {"n": 1, "kind": "b"}),
    "closed": (lambda s: s.update(additionalProperties=False), LEAST | {"new": 1}),
    "in a list": (
        lambda s: fields(s)["list"]["items"]["properties"]["y"].update(type="string"),
        LEAST | {"list": [{"y": 1}]},
    ),
    "in a map": (
        lambda s: fields(s)["by_name"].update(additionalProperties={"type": "string"}),
        LEAST | {"by_name": {"a": 1}},
    ),
    "what is not known here": (lambda s: s.update({"not": {"required": ["x"]}}), LEAST | {"x": 1}),
}


def takes(schema: Schema, document: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(document))


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_what_only_adds_or_leaves_out_may_follow(change: Callable[[Any], Any]) -> None:
    newer = changed(change)
    assert list(breaks(BASE, newer)) == list(breaks(newer, BASE)) == []
    assert takes(newer, LEAST)


@pytest.mark.parametrize(("change", "witness"), BAD.values(), ids=BAD)
def test_what_one_takes_and_the_other_does_not_may_not_follow(
    change: Callable[[Any], Any], witness: Any
) -> None:
    newer = changed(change)
    assert takes(BASE, witness) != takes(newer, witness)
    assert len(list(breaks(BASE, newer))) == 1
    assert len(list(breaks(newer, BASE))) == 1


def test_a_name_that_comes_back_as_something_else_is_seen_across_versions() -> None:
    without = changed(lambda s: fields(s).pop("x"))
    back = changed(lambda s: fields(s).update(x={"type": "string"}))
    assert list(breaks(BASE, without)) == list(breaks(without, back)) == []
    (found,) = breaks_in([BASE, without, back])
    assert found.startswith("v1 to v3: data.x: type")


# -- a consumer of today --------------------------------------------------------------------------


def test_a_consumer_of_today_reads_events_of_later_versions() -> None:
    snapshot = accept()
    event = landing_event(3, WORLD, "v1", NOW, snapshot.digest, snapshot.body)
    later = json.loads(event.cloud_event())
    later |= {
        "traceparent": "00-0af7-b7ad-01",
        "dataschema": schema_of(SNAPSHOT_UPDATED)[:-1] + "9",
    }
    later["data"] |= {"event_version": 9, "new_field": {"deep": [1]}}

    VALIDATORS[ENVELOPE].validate(later)
    VALIDATORS[SNAPSHOT_UPDATED].validate(later["data"])
    read_back = parse(json.dumps(later).encode())

    assert (read_back.id, read_back.type, read_back.key) == (event.id, SNAPSHOT_UPDATED, WORLD)
    assert read_back.data["new_field"] == {"deep": [1]}
    assert read_back.data["weights"] == {"BAC": 0.5, "JPM": 0.5}


def test_a_type_of_later_is_read_too() -> None:
    new = NewEvent("something_new", WORLD, f"{WORLD}/x", "something_new:1", NOW, {"x": 1})
    raw = in_outbox(new).cloud_event()
    VALIDATORS[ENVELOPE].validate(json.loads(raw))
    assert parse(raw).type == "something_new"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("id"),
        lambda document: document.update(specversion="2.0"),
        lambda document: document.update(time="yesterday"),
        lambda document: document.update(sequence=3),
        lambda document: document["data"].pop("idempotency_key"),
        lambda document: document["data"].update(event_version=0),
    ],
)
def test_what_is_no_event_fits_no_schema_and_is_not_read(change: Callable[[Any], Any]) -> None:
    document = json.loads(in_outbox(violation_of_today()).cloud_event())
    change(document)
    assert not VALIDATORS[ENVELOPE].is_valid(document)
    with pytest.raises(EventMalformed):
        parse(json.dumps(document).encode())


def violation_of_today() -> NewEvent:
    row = {"symbol": "A", "position_notional": 2.0, "budget_usd": 1.0, "over_budget": 1.0}
    return violation(row | {"mode": "shadow", "at": NOW})
