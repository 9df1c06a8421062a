"""Landings, what is made of them, their events, bodies, blobs and worlds."""

# ruff: noqa: S608 - statements of our own text

from pathlib import Path

from auditing import CYCLE, Break, at, sql
from stored import outcome

from riskhub.blobs import BlobStore
from riskhub.store import Store


def without(table: str, version: str = "plain") -> Break:
    return sql(f"DELETE FROM {table} WHERE position = {at(version)}")


def damage_a_blob(_: Store, blobs: BlobStore) -> None:
    [ref, *_] = blobs.refs()
    Path(ref.removeprefix("file://")).write_bytes(b"{}")


def lose_a_blob(_: Store, blobs: BlobStore) -> None:
    for ref in blobs.refs():
        blobs.delete(ref)


def outcome_of_nothing(store: Store, _: BlobStore) -> None:
    store.write_days(
        {"var_outcomes": [outcome(10**6, CYCLE.date(), 0.1)]}, [CYCLE.date()], replace=False
    )


ANOTHER = "'sha256:" + "0" * 64 + "'"
COPIED = "type, key, position, event_id, subject, occurred_at, correlation_id, data"
OF_NUMBERS = "type = 'risk_metrics_updated'"
BREAKS: dict[str, tuple[Break, tuple[str, str]]] = {
    "a landing's event is lost": (
        sql(f"DELETE FROM events WHERE event_id IS NULL AND position = {at('plain')}"),
        ("events of landings", "missing"),
    ),
    "a landing's event is doubled": (
        sql(
            f"INSERT INTO events ({COPIED}) SELECT {COPIED} FROM events"
            f" WHERE event_id IS NULL AND position = {at('plain')}"
        ),
        ("events of landings", "doubled"),
    ),
    "an event of numbers is lost": (
        sql(f"DELETE FROM events WHERE {OF_NUMBERS} AND position = {at('plain')}"),
        ("events of numbers", "missing"),
    ),
    "an event of numbers is doubled": (
        sql(f"INSERT INTO events ({COPIED}) SELECT {COPIED} FROM events WHERE {OF_NUMBERS}"),
        ("events", "doubled"),
    ),
    "an event is altered": (
        sql(f"UPDATE events SET data = replace(data, '\"n\":', '\"n\":1') WHERE {OF_NUMBERS}"),
        ("events", "altered"),
    ),
    "an event is cut": (
        sql(f"UPDATE events SET data = substr(data, 1, 40) WHERE {OF_NUMBERS}"),
        ("events", "altered"),
    ),
    "an event has another's id": (
        sql(f"UPDATE events SET event_id = '{'0' * 8}-0000-5000-8000-{'0' * 12}'"
            f" WHERE {OF_NUMBERS} AND position = {at('plain')}"),
        ("events", "altered"),
    ),
    "a landing's event is another world's": (
        sql(f"UPDATE events SET key = 'x' WHERE event_id IS NULL AND position = {at('plain')}"),
        ("events of landings", "missing"),
    ),
    "an event is told of another world": (
        sql(f"UPDATE events SET key = 'x' WHERE {OF_NUMBERS}"),
        ("events", "altered"),
    ),
    "an event is of no type": (
        sql("UPDATE events SET type = 'x' WHERE type = 'exit_signal'"),
        ("events", "altered"),
    ),
    "an event is of another time": (
        sql("UPDATE events SET occurred_at = occurred_at + 1 WHERE type = 'exit_signal'"),
        ("events", "altered"),
    ),
    "an event goes back to another": (
        sql("UPDATE events SET correlation_id = 'x' WHERE type = 'budget_violation'"),
        ("events", "altered"),
    ),
    "the quarantine's event is lost": (
        sql("DELETE FROM events WHERE type = 'snapshot_quarantined'"),
        ("events of the quarantine", "missing"),
    ),
    "the quarantine's event is of another stage": (
        sql("UPDATE events SET data = replace(data, 'paper', 'xxxxx')"
            " WHERE type = 'snapshot_quarantined'"),
        ("events of the quarantine", "altered"),
    ),
    "the quarantine began at another time": (
        sql("UPDATE quarantine SET since = since + 1"),
        ("events of the quarantine", "missing"),
    ),
    "a body is altered": (
        sql("UPDATE snapshots SET body = replace(body, '0.5', '0.4') WHERE version = 'plain'"),
        ("bodies", "altered"),
    ),
    "a body of references is altered": (
        sql("UPDATE snapshots SET body = replace(body, '0.5', '0.4') WHERE version = 'offloaded'"),
        ("bodies", "altered"),
    ),
    "a body is cut": (
        sql("UPDATE snapshots SET body = substr(body, 1, 40) WHERE version = 'plain'"),
        ("bodies", "altered"),
    ),
    "a row's digest is altered": (
        sql(f"UPDATE snapshots SET digest = {ANOTHER} WHERE version = 'plain'"),
        ("bodies", "altered"),
    ),
    "a blob is lost": (lose_a_blob, ("blobs", "missing")),
    "a blob is altered": (damage_a_blob, ("blobs", "altered")),
    "a reference is not noted": (without("snapshot_blobs", "offloaded"), ("references", "missing")),
    "a reference too many is noted": (
        sql(f"INSERT INTO snapshot_blobs (ref, position) VALUES ('file:///x', {at('plain')})"),
        ("references", "extra"),
    ),
    "a verdict is lost": (without("validated_snapshots"), ("verdicts", "missing")),
    "a verdict is of something else": (
        sql(f"UPDATE validated_snapshots SET digest = {ANOTHER} WHERE version = 'plain'"),
        ("verdicts", "altered"),
    ),
    "the quarantine is forgotten": (sql("DELETE FROM quarantine"), ("quarantine", "missing")),
    "what is accepted is in the quarantine": (
        sql(f"UPDATE quarantine SET position = {at('plain')}"),
        ("quarantine", "extra"),
    ),
    "weights are lost": (without("snapshot_weights"), ("weights", "missing")),
    "weights are altered": (
        sql("UPDATE snapshot_weights SET weight = 0.4 WHERE symbol = 'BAC'"),
        ("weights", "altered"),
    ),
    "numbers are lost": (without("risk_metrics"), ("numbers", "missing")),
    "numbers are of something else": (
        sql(f"UPDATE risk_metrics SET snapshot_digest = {ANOTHER}"),
        ("numbers", "altered"),
    ),
    "a number is altered": (
        sql(f"UPDATE risk_tails SET var = 0.5 WHERE position = {at('plain')}"),
        ("numbers", "altered"),
    ),
    "tails are lost": (without("risk_tails"), ("tails", "missing")),
    "contributions are lost": (without("risk_contributions"), ("contributions", "missing")),
    "stress is lost": (without("snapshot_stress"), ("stress", "missing")),
    "a stress result is lost": (
        sql(
            "DELETE FROM stress_results WHERE scenario ="
            " (SELECT min(scenario) FROM stress_results WHERE origin = 'riskhub')"
        ),
        ("stress results", "missing"),
    ),
    "what is rejected has weights": (
        sql(f"UPDATE snapshot_weights SET position = {at('rejected')}"
            f" WHERE position = {at('plain')}"),
        ("weights", "extra"),
    ),
    "rows of a landing that is gone": (outcome_of_nothing, ("var_outcomes", "extra")),
    "a landing is gone, and its rows are not": (
        sql("DELETE FROM snapshots WHERE version = 'plain'"),
        ("risk_metrics", "extra"),
    ),
    "tails too many": (
        sql("UPDATE risk_metrics SET unavailable = 'too few returns'"),
        ("tails", "extra"),
    ),
    "contributions too many": (
        sql("UPDATE risk_metrics SET contributions_level = NULL"),
        ("contributions", "extra"),
    ),
    "stress is of another day": (
        sql("UPDATE snapshot_stress SET day = '2020-01-01'"),
        ("stress", "altered"),
    ),
    "a stress result too many": (
        sql("DELETE FROM scenario_books WHERE scenario ="
            " (SELECT min(scenario) FROM stress_results WHERE origin = 'riskhub')"),
        ("stress results", "extra"),
    ),
    "what is rejected has numbers": (
        sql(f"UPDATE risk_metrics SET position = {at('rejected')} WHERE position = {at('plain')}"),
        ("numbers", "extra"),
    ),
    "what is rejected has stress": (
        sql(f"UPDATE snapshot_stress SET position = {at('rejected')}"
            f" WHERE position = {at('plain')}"),
        ("stress", "extra"),
    ),
    "a world is not known": (sql("DELETE FROM world_stages"), ("worlds", "missing")),
    "a world is said to be older than it is": (
        sql("UPDATE world_stages SET newest_as_of = NULL"),
        ("worlds", "altered"),
    ),
    "a world is said to be dead": (
        sql("UPDATE world_stages SET alive_until = NULL"),
        ("worlds", "altered"),
    ),
}  # fmt: skip
