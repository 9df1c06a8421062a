"""What of some landings is there, and what is not computed yet."""

from builders import WORLD
from stored import DAY, land_days, metrics, verdict

from riskhub.store import Store


def test_landings_are_found_by_world_and_version_with_their_digest(store: Store) -> None:
    first, second = land_days(store, 30, 31)
    digests = {landed.position: landed.digest for landed in store.landed_on(DAY, DAY)}

    found = store.positions_of([(WORLD, "0"), (WORLD, "1"), (WORLD, "2"), ("other", "0")])

    assert {key: position for key, (position, _) in found.items()} == {
        (WORLD, "0"): first,
        (WORLD, "1"): second,
    }
    assert found[WORLD, "1"] == (second, digests[second])
    assert store.positions_of([]) == {}


def test_more_keys_than_a_statement_takes_are_found(store: Store) -> None:
    positions = land_days(store, *[1 + n % 31 for n in range(900)])

    found = store.positions_of([(WORLD, str(n)) for n in range(900)])

    assert sorted(position for position, _ in found.values()) == sorted(positions)
    landed = store.landed_without("risk_metrics", positions)
    assert [each.position for each in landed] == sorted(positions)


def test_what_has_rows_is_left_out_and_what_is_not_accepted_on_request(store: Store) -> None:
    done, open_, rejected, unjudged = land_days(store, 28, 29, 30, 31)
    verdicts = [verdict(done), verdict(open_), verdict(rejected, accepted=False)]
    rows = {"validated_snapshots": verdicts, "risk_metrics": [metrics(done)]}
    store.write_days(rows, [DAY], replace=False)
    every = [done, open_, rejected, unjudged]

    def without(table: str, *, accepted: bool = False) -> list[int]:
        return [each.position for each in store.landed_without(table, every, accepted=accepted)]

    assert without("validated_snapshots") == [unjudged]
    assert without("risk_metrics") == [open_, rejected, unjudged]
    assert without("risk_metrics", accepted=True) == [open_]
    assert store.landed_without("risk_metrics", [done]) == []
