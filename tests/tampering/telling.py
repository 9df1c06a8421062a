"""Violations, exit signals and episodes, and the events that tell of them."""

# ruff: noqa: S608 - statements of our own text

import sqlalchemy as sa
from auditing import Break, sql

from riskhub.blobs import BlobStore
from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.exit_tables import exit_episodes, exit_signals, exit_states
from riskhub.store.tables import budget_violations

COPIED = "at, symbol, position_notional, budget_usd, over_budget, mode"
AMD = budget_violations.c.symbol == "AMD"
IS_OPEN = exit_episodes.c.closed_at.is_(None)
OF_OPEN = exit_signals.c.episode_id.in_(sa.select(exit_episodes.c.id).where(IS_OPEN))


def run(statement: sa.Update | sa.Delete) -> Break:
    def do(store: Store, _: BlobStore | None = None) -> None:
        with writing(store.engine) as connection:
            assert connection.execute(statement).rowcount

    return do


def tell_otherwise(name: str, value: object) -> Break:
    """Alter what a signal's row says that it told."""

    def do(store: Store, _: BlobStore | None = None) -> None:
        with writing(store.engine) as connection:
            row = connection.execute(sa.select(exit_signals).where(OF_OPEN)).one()
            altered = sa.update(exit_signals).where(exit_signals.c.id == row.id)
            connection.execute(altered.values(data=row.data | {name: value}))

    return do


BREAKS: dict[str, tuple[Break, tuple[str, str]]] = {
    "a violation's event is lost": (
        sql("DELETE FROM events WHERE type = 'budget_violation' AND key = 'AMD'"),
        ("events of violations", "missing"),
    ),
    "a violation is lost": (
        run(sa.delete(budget_violations).where(AMD)),
        ("violations", "missing"),
    ),
    "a violation is doubled": (
        sql(f"INSERT INTO budget_violations ({COPIED})"
            f" SELECT {COPIED} FROM budget_violations WHERE symbol = 'AMD'"),
        ("violations", "doubled"),
    ),
    "a violation is altered": (
        run(sa.update(budget_violations).where(AMD).values(position_notional=-1_600.0)),
        ("violations", "altered"),
    ),
    "a violation that nobody told": (
        sql(f"INSERT INTO budget_violations ({COPIED})"
            " SELECT at, 'TSLA', 1, 2, 3, mode FROM budget_violations WHERE symbol = 'AMD'"),
        ("events of violations", "missing"),
    ),
    "an event of a violation is altered": (
        sql("UPDATE events SET data = replace(data, '-2000', '-1000')"
            " WHERE type = 'budget_violation' AND key = 'AMD'"),
        ("events", "altered"),
    ),
    "a signal's event is lost": (
        sql("DELETE FROM events WHERE sequence ="
            " (SELECT max(sequence) FROM events WHERE type = 'exit_signal')"),
        ("events of exit signals", "missing"),
    ),
    "a signal is lost": (run(sa.delete(exit_signals).where(OF_OPEN)), ("exit signals", "missing")),
    "a signal and its event are lost": (
        sql(
            "DELETE FROM events WHERE sequence ="
            " (SELECT max(sequence) FROM events WHERE type = 'exit_signal')",
            "DELETE FROM exit_signals WHERE id = (SELECT max(id) FROM exit_signals)",
        ),
        ("exit signals", "missing"),
    ),
    "a signal is another kind than it told": (
        run(sa.update(exit_signals).where(OF_OPEN).values(why="because")),
        ("exit signals", "altered"),
    ),
    "a signal's row says otherwise than its event": (
        tell_otherwise("evidence", {}),
        ("exit signals", "altered"),
    ),
    "what a signal told can't be read": (
        run(sa.update(exit_signals).where(OF_OPEN).values(data=[])),
        ("exit signals", "altered"),
    ),
    "an event of a signal is altered": (
        sql("UPDATE events SET data = replace(data, 'reduce', 'freeze')"
            " WHERE type = 'exit_signal'"),
        ("exit signals", "altered"),
    ),
    "an episode has another signal": (
        run(sa.update(exit_episodes).where(IS_OPEN).values(signals=0)),
        ("exit signals", "extra"),
    ),
    "an open episode is altered": (
        run(sa.update(exit_episodes).where(IS_OPEN).values(action="freeze")),
        ("exit episodes", "altered"),
    ),
    "a closed episode is altered": (
        run(sa.update(exit_episodes).where(~IS_OPEN).values(worst=0.9)),
        ("exit episodes", "altered"),
    ),
    "an open episode is forgotten": (run(sa.delete(exit_states)), ("exit states", "missing")),
    "an episode that is over is named as open": (
        sql("UPDATE exit_states SET episode_id ="
            " (SELECT id FROM exit_episodes WHERE closed_at IS NOT NULL)",
            "DELETE FROM exit_signals WHERE episode_id IN"
            " (SELECT id FROM exit_episodes WHERE closed_at IS NULL)",
            "DELETE FROM exit_episodes WHERE closed_at IS NULL",
            "DELETE FROM events WHERE sequence ="
            " (SELECT max(sequence) FROM events WHERE type = 'exit_signal')"),
        ("exit states", "altered"),
    ),
    "what is named as open is not there": (
        sql("UPDATE exit_states SET episode_id = 'x', rule = 'another'",
            "INSERT INTO exit_states (rule, world_id, stage, episode_id, streak, reopened)"
            " SELECT rule, world_id, stage, id, 0, 0 FROM exit_episodes WHERE closed_at IS NULL"),
        ("exit episodes", "missing"),
    ),
}  # fmt: skip
