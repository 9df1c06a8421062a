"""The snapshot contract, v1: what is taken, what is refused and by which name, what is hashed."""

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import blake3
import pytest
from builders import ABSENT, ACTOR, NOW, STAGE, WORLD, accept, snapshot_document
from hypothesis import given, settings
from hypothesis import strategies as st

from riskhub.errors import ContractViolation
from riskhub.snapshot import (
    MAX_POINTS_PER_SERIES,
    Snapshot,
    covariance_pair,
    format_instant,
    is_world_id,
    parse_instant,
    validate,
)
from riskhub.strict_json import parse_json

COVARIANCE = {"BAC,BAC": 0.0004, "JPM,JPM": 0.0002, "BAC,JPM": 0.0001}
WORD = "x" * 128


def refused_fields(document: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
    """The fields that the refusal of a document names."""
    with pytest.raises(ContractViolation) as caught:
        accept(document, **kwargs)
    return [error.field for error in caught.value.errors]


def body_of(snapshot: Snapshot) -> dict[str, Any]:
    return json.loads(snapshot.body)


def own_digest(content: dict[str, Any], algorithm: str = "sha256") -> str:
    """The digest as the contract words it, from nothing of riskhub's."""
    covered = {key: value for key, value in content.items() if key not in ("hash", "created_at")}
    payload = json.dumps(covered, sort_keys=True, separators=(",", ":")).encode("utf-8")
    made = hashlib.sha256(payload) if algorithm == "sha256" else blake3.blake3(payload)
    return f"{algorithm}:{made.hexdigest()}"


def as_hashed(**overrides: Any) -> dict[str, Any]:
    """The validated body of a document that names none of the hub's own fields."""
    document = snapshot_document(**overrides)
    return {"ttl_sec": 900} | document | {
        "world_id": WORLD,
        "provenance": document.get("provenance", {}) | {"actor": ACTOR, "stage": STAGE},
    }  # fmt: skip


# -- strict JSON ----------------------------------------------------------------------------------


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", ['{"a": %s}', '{"a": [1, %s]}', '{"a": {"b": %s}}'])
def test_what_json_does_not_have_is_no_number(place: str, literal: str) -> None:
    with pytest.raises(ContractViolation, match=f"holds {literal}"):
        parse_json((place % literal).encode())


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1e400", str(10**400), str(-(10**400)), "9" * 5000, str(2**1024)],
    ids=["1e400", "-1e400", "10**400", "-10**400", "5000 digits", "2**1024"],
)
@pytest.mark.parametrize("place", ['{"a": %s}', '{"a": [0.5, %s]}', '{"a": [{"b": %s}]}'])
def test_a_number_beyond_the_floats_is_refused_wherever_it_stands(place: str, number: str) -> None:
    with pytest.raises(ContractViolation, match=r"too large for a number|too many digits"):
        parse_json((place % number).encode())


def test_the_largest_and_smallest_floats_are_numbers() -> None:
    largest = int(sys.float_info.max)
    assert parse_json(b'{"a": [1.7e308, -1.7e308, 5e-324, 1e-400, %d]}' % largest)
    assert accept(stress={"s": {"m": 1.7e308, "n": -largest}})


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"weights": {"A": 1, "B": 0, "A": 1}}', "A"),
        ('{"a": [[{"b": {"c": 1, "c": 2}}]]}', "c"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('{"": 1, "": 2}', ""),
    ],
)
def test_a_key_twice_in_one_object_is_refused_at_any_depth(text: str, twice: str) -> None:
    with pytest.raises(ContractViolation, match="twice") as caught:
        parse_json(text.encode())
    assert caught.value.errors[0].field == twice


def test_the_same_key_in_two_objects_is_no_duplicate() -> None:
    assert parse_json(b'{"a": {"a": 1}, "b": {"a": 2}}') == {"a": {"a": 1}, "b": {"a": 2}}


@pytest.mark.parametrize(
    "text",
    [
        r'{"a": "\ud800"}',
        r'{"a": "\udc00\ud800"}',
        r'{"\ud800": 1}',
        r'{"a": ["x", "\udfff"]}',
        r'{"a": [{"\udfff": 1}]}',
    ],
)
def test_a_lone_surrogate_is_no_text(text: str) -> None:
    with pytest.raises(ContractViolation, match="lone surrogate"):
        parse_json(text.encode())


def test_a_surrogate_pair_is_a_character() -> None:
    assert parse_json(rb'{"a": "\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}


@pytest.mark.parametrize("depth", [33, 100, 10_000])
@pytest.mark.parametrize(
    ("opened", "closed"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"]
)
def test_deep_nesting_is_refused_and_overflows_nothing(
    opened: str, closed: str, depth: int
) -> None:
    text = f'{{"a":{opened * (depth - 1)}1{closed * (depth - 1)}}}'
    with pytest.raises(ContractViolation, match="nested deeper than 32"):
        parse_json(text.encode())


@pytest.mark.parametrize("leaf", ["1", '"x"', "null"])
def test_nesting_to_the_limit_is_taken_whatever_stands_inside(leaf: str) -> None:
    assert parse_json(f'{{"a":{"[" * 31}{leaf}{"]" * 31}}}'.encode())


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 7)"),
        (b'{"a": "\xed\xa0\x80"}', "is not UTF-8"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b"", "is not JSON"),
        (b'{"a": 1', "is not JSON: .* line 1 column 8"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": 01}', "is not JSON"),
        (b'{"a": "\n"}', "is not JSON"),
        (b'{"a": 1,}', "is not JSON"),
        (b"{} {}", "is not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b"null", "must be a JSON object"),
    ],
)
def test_what_is_not_one_json_object_in_utf8_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(ContractViolation, match=said.replace("(", r"\(").replace(")", r"\)")):
        parse_json(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_violation(raw: bytes) -> None:
    with suppress(ContractViolation):
        assert isinstance(parse_json(raw), dict)


# -- world, version -------------------------------------------------------------------------------


@pytest.mark.parametrize("world_id", ["a", "A-1._:x", WORD])
def test_a_world_has_a_name_of_plain_characters(world_id: str) -> None:
    assert is_world_id(world_id)
    assert accept(world_id=world_id).world_id == world_id


@pytest.mark.parametrize("world_id", ["", WORD + "x", "a b", "a/b", "ä", "a\n", 1, None, ["a"]])
def test_no_other_name_is_a_world(world_id: Any) -> None:
    document = snapshot_document() | {"world_id": world_id}
    assert refused_fields(document, world_id=None) == ["world_id"]


def test_the_body_names_the_world_where_the_path_does_not() -> None:
    document = snapshot_document() | {"world_id": "fx"}
    assert accept(document, world_id=None).world_id == "fx"
    assert refused_fields(snapshot_document(), world_id=None) == ["world_id"]


def test_path_and_body_agree_on_the_world() -> None:
    assert accept(snapshot_document() | {"world_id": WORLD}).world_id == WORLD
    assert refused_fields(snapshot_document() | {"world_id": "fx"}) == ["world_id"]


@pytest.mark.parametrize("version", ["1", " ", "2026-01-31/é€", WORD])
def test_a_version_is_printable(version: str) -> None:
    assert accept(version=version).version == version


@pytest.mark.parametrize("version", [ABSENT, "", WORD + "x", "a\n", "\x00", 1, None, True])
def test_no_other_version_is_taken(version: Any) -> None:
    assert refused_fields(version=version) == ["version"]


# -- as_of ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T21:00:00Z", datetime(2026, 1, 31, 21, tzinfo=UTC)),
        ("2026-01-31T21:00Z", datetime(2026, 1, 31, 21, tzinfo=UTC)),
        ("2026-02-01T02:30:00+05:30", datetime(2026, 1, 31, 21, tzinfo=UTC)),
        ("2026-01-31T16:00:00-05", datetime(2026, 1, 31, 21, tzinfo=UTC)),
        ("2026-01-31T16:00:00-0500", datetime(2026, 1, 31, 21, tzinfo=UTC)),
        ("2026-01-31T21:00:00.25Z", datetime(2026, 1, 31, 21, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-01-31T21:00:00,25Z", datetime(2026, 1, 31, 21, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-01-31T21:00:00.1234569Z", datetime(2026, 1, 31, 21, 0, 0, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_as_of_is_an_instant_however_it_is_written(text: str, instant: datetime) -> None:
    snapshot = accept(as_of=text)
    assert (snapshot.as_of, snapshot.as_of.tzinfo) == (instant, UTC)
    assert body_of(snapshot)["as_of"] == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T21:00:00",  # without an offset
        "2026-01-31",
        "20260131T210000Z",
        "2026-01-31 21:00:00Z",
        "2026-01-31T21:00:00z",
        "2026-01-31T21:00:00+25:00",
        "2026-02-30T21:00:00Z",
        "2026-01-31T24:30:00Z",
        "2016-12-31T23:59:60Z",  # a leap second: no clock of ours has it
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "12026-01-31T21:00:00Z",
        "２０２６-01-31T21:00:00Z",  # digits, but not those of ISO 8601
        "2026-01-31T21:00:00Z\n",
        "",
        ABSENT,
        None,
        1_769_893_200,
        ["2026-01-31T21:00:00Z"],
    ],
)
def test_no_other_text_is_an_instant(text: Any) -> None:
    assert refused_fields(as_of=text) == ["as_of"]


def test_as_of_may_be_five_minutes_ahead_of_the_hub_and_no_more() -> None:
    ahead = NOW + timedelta(minutes=5)
    assert accept(as_of=format_instant(ahead)).as_of == ahead
    assert refused_fields(as_of=format_instant(ahead + timedelta(microseconds=1))) == ["as_of"]
    assert refused_fields(as_of="9999-12-31T23:59:59Z") == ["as_of"]


def test_as_of_ahead_of_the_hub_is_judged_as_an_instant_not_as_text() -> None:
    assert accept(as_of="2026-02-01T10:00:00+13:00").as_of < NOW  # its text says tomorrow
    assert refused_fields(as_of="2026-01-31T20:00:00-05:00") == ["as_of"]  # its text says an hour


def test_how_far_ahead_is_configurable() -> None:
    document = snapshot_document(as_of=format_instant(NOW + timedelta(seconds=1)))
    who: Any = {"world_id": WORLD, "actor": ACTOR, "stage": STAGE, "received_at": NOW}
    assert validate(document, **who, future_tolerance=timedelta(seconds=1))
    with pytest.raises(ContractViolation, match="as_of"):
        validate(document, **who, future_tolerance=timedelta())


def test_an_instant_is_written_in_utc_to_the_microsecond() -> None:
    assert format_instant(parse_instant("2026-02-01T02:30:00.5+05:30")) == (
        "2026-01-31T21:00:00.500000Z"
    )


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights",
    [
        {"A": 1},
        {"A": 1.5, "B": -0.5},
        {"A": 0.999},
        {"A": 1.001},
        {"A": 1, "B": 0},
        dict.fromkeys(map(str, range(10)), 0.1),
    ],
)
def test_weights_sum_to_one_within_a_thousandth_and_may_be_short(
    weights: dict[str, float],
) -> None:
    assert body_of(accept(weights=weights))["weights"] == weights


@pytest.mark.parametrize(
    "weights",
    [
        {"A": 0.9989},
        {"A": 1.0011},
        {"A": -1},
        {"A": 0},
        {"A": 1.5, "B": -1.5},
        {"A": 8e307, "B": -8e307, "C": 1.0},  # the sum is 1, the gross exposure is not a number
        {"A": 8e307, "B": 8e307, "C": 8e307},
        {},
        ABSENT,
        None,
        [0.5, 0.5],
        "BAC",
    ],
)
def test_other_sums_and_other_shapes_are_refused(weights: Any) -> None:
    assert refused_fields(weights=weights) == ["weights"]


@pytest.mark.parametrize("weight", [True, False, "0.5", None, [0.5], {"x": 0.5}])
def test_only_a_number_is_a_weight(weight: Any) -> None:
    assert refused_fields(weights={"A": 1.0, "B": weight}) == ["weights.B"]


@pytest.mark.parametrize("symbol", ["", "A,B", "A\n", WORD + "x"])
def test_a_symbol_is_printable_and_without_a_comma(symbol: str) -> None:
    (field,) = refused_fields(weights={"A": 1.0, symbol: 0.0})
    assert field.startswith("weights.")


# -- covariance -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "covariance",
    [
        COVARIANCE,
        COVARIANCE | {"JPM,BAC": 0.0001},
        {"JPM,BAC": -0.0001, "JPM,JPM": 0.0002, "BAC,BAC": 0.0004},
        {"BAC,BAC": 0},
        {"Z,Z": 1e-5},  # of a symbol without a weight
    ],
)
def test_covariance_is_symmetric_pairs_in_either_order(covariance: dict[str, float]) -> None:
    assert body_of(accept(covariance=covariance))["covariance"] == covariance


@pytest.mark.parametrize(
    ("covariance", "named"),
    [
        ({"BAC,JPM": 1e-4, "BAC,BAC": 4e-4}, "covariance.JPM,JPM"),
        (COVARIANCE | {"JPM,BAC": 0.0002}, "covariance.BAC,JPM"),
        ({"BAC,BAC": -1e-4}, "covariance.BAC,BAC"),
        ({"BAC,BAC": True}, "covariance.BAC,BAC"),
        ({"BAC,BAC": "1"}, "covariance.BAC,BAC"),
        (COVARIANCE | {"BAC": 1.0}, "covariance.BAC"),
        (COVARIANCE | {"BAC,JPM,X": 1.0}, "covariance.BAC,JPM,X"),
        (COVARIANCE | {"BAC,": 1.0}, "covariance.BAC,"),
        ({}, "covariance"),
        ([[1.0]], "covariance"),
        (None, "covariance"),
    ],
)
def test_a_bad_covariance_is_named_by_its_pair(covariance: Any, named: str) -> None:
    assert named in refused_fields(covariance=covariance)


def test_a_covariance_key_names_two_symbols() -> None:
    assert covariance_pair("A,B") == ("A", "B")
    assert [covariance_pair(key) for key in ("A", "A,", ",A", "A,B,C", "")] == [None] * 5


# -- returns, stress, constraints, refs -----------------------------------------------------------


def test_realized_returns_are_series_of_finite_numbers() -> None:
    realized = {"portfolio": [0.01, -0.02, 0], "BAC": [1e-3]}
    assert body_of(accept(realized_returns=realized))["realized_returns"] == realized


@pytest.mark.parametrize(
    ("realized", "named"),
    [
        ({}, "realized_returns"),
        ([], "realized_returns"),
        (None, "realized_returns"),
        ({"p": []}, "realized_returns.p"),
        ({"p": 0.01}, "realized_returns.p"),
        ({"p": {"0": 0.01}}, "realized_returns.p"),
        ({"p": [0.1, True]}, "realized_returns.p[1]"),
        ({"p": [0.1, "0.1"]}, "realized_returns.p[1]"),
        ({"p": [None]}, "realized_returns.p[0]"),
        ({"": [0.1]}, "realized_returns."),
    ],
)
def test_a_bad_series_is_named_with_the_place_of_the_bad_point(realized: Any, named: str) -> None:
    assert refused_fields(realized_returns=realized) == [named]


def validated(**overrides: Any) -> Snapshot:
    """Without the way through JSON, which these sizes would spend their time on."""
    return validate(
        snapshot_document(**overrides), world_id=WORLD, actor=ACTOR, stage=STAGE, received_at=NOW
    )


def test_a_series_has_at_most_two_hundred_thousand_points() -> None:
    assert MAX_POINTS_PER_SERIES == 200_000
    assert validated(realized_returns={"p": [0.0] * 200_000})
    with pytest.raises(ContractViolation, match=r"realized_returns\.p: has more than 200000"):
        validated(realized_returns={"p": [0.0] * 200_001})


def test_all_series_together_have_at_most_a_million_points() -> None:
    full = {f"s{number}": [0.0] * 200_000 for number in range(5)}
    assert validated(realized_returns=full)
    with pytest.raises(ContractViolation, match="realized_returns: has more than 1000000"):
        validated(realized_returns=full | {"one more": [0.0]})


@pytest.mark.parametrize("stress", [{}, {"2008": {}}, {"2008": {"loss": -0.4, "days": 12}}])
def test_stress_is_measures_by_scenario(stress: Any) -> None:
    assert body_of(accept(stress=stress))["stress"] == stress


@pytest.mark.parametrize(
    ("stress", "named"),
    [
        ([], "stress"),
        (None, "stress"),
        ({"2008": -0.4}, "stress.2008"),
        ({"2008": {"loss": "-0.4"}}, "stress.2008.loss"),
        ({"2008": {"loss": True}}, "stress.2008.loss"),
    ],
)
def test_a_bad_stress_is_named_by_scenario_and_measure(stress: Any, named: str) -> None:
    assert refused_fields(stress=stress) == [named]


@pytest.mark.parametrize(
    "constraints",
    [
        {},
        {"anything": [1, {"goes": None}]},
        {"candidate_id": "c", "candidate_weight": 1},
        {"candidate_id": "c", "candidate_weight": 5e-324},
    ],
)
def test_constraints_are_free_but_for_the_candidate(constraints: Any) -> None:
    assert body_of(accept(constraints=constraints))["constraints"] == constraints


@pytest.mark.parametrize(
    ("constraints", "named"),
    [
        ([], "constraints"),
        (None, "constraints"),
        ({"candidate_id": "c"}, "constraints.candidate_weight"),
        ({"candidate_weight": 0.5}, "constraints.candidate_id"),
        ({"candidate_id": "", "candidate_weight": 0.5}, "constraints.candidate_id"),
        ({"candidate_id": 7, "candidate_weight": 0.5}, "constraints.candidate_id"),
        ({"candidate_id": "c", "candidate_weight": 0}, "constraints.candidate_weight"),
        ({"candidate_id": "c", "candidate_weight": -0.1}, "constraints.candidate_weight"),
        ({"candidate_id": "c", "candidate_weight": 1.01}, "constraints.candidate_weight"),
        ({"candidate_id": "c", "candidate_weight": True}, "constraints.candidate_weight"),
    ],
)
def test_a_candidate_has_an_id_and_a_weight_in_0_1(constraints: Any, named: str) -> None:
    assert refused_fields(constraints=constraints) == [named]


@pytest.mark.parametrize("field", ["covariance_ref", "realized_returns_ref", "stress_ref"])
def test_a_reference_is_refused_while_there_is_no_blob_store(field: str) -> None:
    assert refused_fields(**{field: "s3://bucket/key"}) == [field]


@pytest.mark.parametrize("field", ["weight", "Version", "as_of ", "", "\x00", "z" * 100])
def test_a_field_that_the_contract_does_not_have_is_refused(field: str) -> None:
    (named,) = refused_fields(**{field: 1})
    assert named.isprintable()
    assert len(named) <= 64


# -- ttl ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl_sec", [1, 900, 86_400])
def test_ttl_counts_from_the_hubs_receipt(ttl_sec: int) -> None:
    snapshot = accept(ttl_sec=ttl_sec, created_at="2020-01-01T00:00:00Z")
    assert snapshot.expires_at == NOW + timedelta(seconds=ttl_sec)


def test_without_a_ttl_it_is_fifteen_minutes() -> None:
    snapshot = accept()
    assert snapshot.ttl_sec == body_of(snapshot)["ttl_sec"] == 900


@pytest.mark.parametrize("ttl_sec", [0, -1, 86_401, 900.0, 0.5, "900", True, None, [900]])
def test_no_other_ttl_is_taken(ttl_sec: Any) -> None:
    assert refused_fields(ttl_sec=ttl_sec) == ["ttl_sec"]


# -- provenance -----------------------------------------------------------------------------------


def test_provenance_says_what_the_headers_say_and_keeps_the_rest() -> None:
    snapshot = accept(provenance={"model": "hrp", "actor": ACTOR}, stage="live")
    assert body_of(snapshot)["provenance"] == {"model": "hrp", "actor": ACTOR, "stage": "live"}
    assert (snapshot.actor, snapshot.stage) == (ACTOR, "live")


@pytest.mark.parametrize("name", ["actor", "stage"])
@pytest.mark.parametrize("value", ["somebody else", "", None, 1])
def test_a_body_that_names_another_is_refused(name: str, value: Any) -> None:
    assert refused_fields(provenance={name: value}) == [f"provenance.{name}"]


@pytest.mark.parametrize("provenance", [[], None, "me", 1])
def test_provenance_is_an_object(provenance: Any) -> None:
    assert refused_fields(provenance=provenance) == ["provenance"]


@pytest.mark.parametrize("value", ["", WORD + "x", "a\tb", "\x85"])
def test_actor_and_stage_are_printable(value: str) -> None:
    assert refused_fields(actor=value) == ["X-Actor"]
    assert refused_fields(stage=value) == ["X-Stage"]


# -- hash and created_at --------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"weights": {"B": 0, "A": 1}},  # integers stay integers
        {"weights": {"A": 1.0, "é": 0.1e-3, "b": -0.0}},
        {"covariance": {"A,A": 1e-05}, "stress": {"s": {"m": 100000000000000000000}}},
        {"ttl_sec": 60, "provenance": {"model": "ünïcode", "stage": STAGE}},
        {"constraints": {"b": [None, True, 1e22], "a": {}}},
    ],
)
def test_the_digest_is_that_of_the_canonical_body(extra: dict[str, Any], algorithm: str) -> None:
    expected = own_digest(as_hashed(**extra), algorithm)
    snapshot = accept(**extra, hash=expected)
    assert snapshot.digest == body_of(snapshot)["hash"] == expected
    assert own_digest(body_of(snapshot), algorithm) == expected


def test_without_a_hash_the_hub_takes_sha256() -> None:
    assert accept().digest == own_digest(as_hashed())


def test_an_integer_and_a_float_of_one_value_are_two_contents() -> None:
    assert accept(weights={"A": 1}).digest != accept(weights={"A": 1.0}).digest


def test_points_of_realized_returns_are_floats_in_the_digest() -> None:
    as_integers = accept(realized_returns={"p": [0, 1, -1]})
    assert as_integers.digest == accept(realized_returns={"p": [0.0, 1.0, -1.0]}).digest
    assert as_integers.digest == own_digest(as_hashed(realized_returns={"p": [0.0, 1.0, -1.0]}))
    assert '"p":[0.0,1.0,-1.0]' in as_integers.body


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_a_hash_of_other_content_is_refused(algorithm: str) -> None:
    other = own_digest(as_hashed(version="another"), algorithm)
    assert refused_fields(hash=other) == ["hash"]


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "md5:" + "0" * 32, "0" * 64, "SHA256:" + "0" * 64, None, 1, ["x"]],
)
def test_what_is_not_a_digest_is_refused(text: Any) -> None:
    assert refused_fields(hash=text) == ["hash"]


def test_upper_case_hex_is_not_how_a_digest_is_written() -> None:
    upper = "sha256:" + own_digest(as_hashed()).removeprefix("sha256:").upper()
    assert refused_fields(hash=upper) == ["hash"]


def test_created_at_is_the_receipt_and_the_producers_is_kept_as_produced_at() -> None:
    body = body_of(accept(created_at="2026-01-31T22:00:01+01:00"))
    assert body["created_at"] == "2026-01-31T21:05:00.000000Z"
    assert body["provenance"]["produced_at"] == "2026-01-31T22:00:01+01:00"


def test_created_at_decides_nothing() -> None:
    plain = accept()
    for created_at in ("2026-01-31T21:00:01Z", "2030-01-01T00:00:00Z"):
        told = accept(created_at=created_at)
        assert told.digest == plain.digest
        assert told.same_content(plain.digest)


@pytest.mark.parametrize("created_at", ["2026-01-31T21:00:01", "yesterday", 0, None])
def test_created_at_is_an_instant_too(created_at: Any) -> None:
    assert refused_fields(created_at=created_at) == ["created_at"]


def test_content_is_the_same_whichever_algorithm_stored_it() -> None:
    snapshot = accept()
    assert snapshot.same_content(own_digest(as_hashed(), "blake3"))
    assert not snapshot.same_content(own_digest(as_hashed(version="v2"), "blake3"))


def test_every_broken_rule_is_told_at_once() -> None:
    fields = refused_fields(
        as_of="x", version="", weights={"A": "1"}, ttl_sec=0, surprise=1, stress=1
    )
    assert set(fields) == {"as_of", "version", "weights.A", "ttl_sec", "surprise", "stress"}


def test_the_document_is_left_as_it_was() -> None:
    document = snapshot_document(realized_returns={"p": [1, 2]}, provenance={"model": "m"})
    before = json.dumps(document)
    accept(document, created_at="2026-01-31T21:00:01Z")
    validate(document, world_id=WORLD, actor=ACTOR, stage=STAGE, received_at=NOW)
    assert json.dumps(document) == before


# -- any document ---------------------------------------------------------------------------------

labels = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
symbols = labels.map(lambda text: text.replace(",", "_"))
numbers = st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(labels, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def weights_of(draw: st.DrawFn) -> dict[str, float]:
    held = draw(st.lists(symbols, min_size=1, max_size=6, unique=True))
    drawn = [draw(st.floats(-1, 1)) for _ in held[1:]]
    return dict(zip(held, [1.0 - math.fsum(drawn), *drawn], strict=True))


@st.composite
def covariance_of(draw: st.DrawFn) -> dict[str, float]:
    listed = draw(st.lists(symbols, min_size=1, max_size=3, unique=True))
    pairs = {f"{symbol},{symbol}": draw(st.floats(0, 1)) for symbol in listed}
    for first, second in pairwise(listed):
        value = draw(st.floats(-1, 1))
        pairs[f"{first},{second}"] = value
        if draw(st.booleans()):
            pairs[f"{second},{first}"] = value
    return pairs


instants = st.integers(0, int(NOW.timestamp())).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat()
)
documents = st.fixed_dictionaries(
    {"as_of": instants, "version": labels, "weights": weights_of()},
    optional={
        "world_id": st.just(WORLD),
        "covariance": covariance_of(),
        "realized_returns": st.dictionaries(
            labels, st.lists(numbers, min_size=1, max_size=5), min_size=1, max_size=3
        ),
        "stress": st.dictionaries(labels, st.dictionaries(labels, numbers, max_size=2), max_size=2),
        "constraints": st.dictionaries(labels, json_values, max_size=3),
        "ttl_sec": st.integers(1, 86_400),
        "provenance": st.dictionaries(
            labels.filter(lambda key: key not in ("actor", "stage")), json_values, max_size=2
        ),
    },
)


def shuffled(value: Any, order: Any) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    return value


@given(documents, st.randoms(use_true_random=False), st.sampled_from([None, 1, "\t"]))
def test_the_digest_knows_neither_key_order_nor_whitespace(
    document: dict[str, Any], order: Any, indent: Any
) -> None:
    other = json.dumps(shuffled(document, order), indent=indent, ensure_ascii=False).encode()
    same = validate(parse_json(other), world_id=WORLD, actor=ACTOR, stage=STAGE, received_at=NOW)
    assert same == accept(document)


@given(documents)
def test_a_stored_body_gives_the_digest_again_and_is_taken_again(document: dict[str, Any]) -> None:
    snapshot = accept(document)
    body = body_of(snapshot)
    assert own_digest(body) == snapshot.digest
    again = accept({key: value for key, value in body.items() if key != "created_at"})
    assert (again.digest, again.payload) == (snapshot.digest, snapshot.payload)


WRONG: dict[str, list[Any]] = {
    "world_id": ["elsewhere", 1, ""],
    "as_of": ["now", 0, "2026-01-31T21:00:00"],
    "version": ["", 1, "\n"],
    "weights": [{}, 1, {"A": 0.5}],
    "covariance": [{}, {"A": 1}, 0],
    "realized_returns": [{}, {"p": []}, []],
    "stress": [[], {"s": 1}],
    "constraints": [[], {"candidate_id": "c"}],
    "ttl_sec": [0, 1.0, "1"],
    "provenance": [[], {"actor": "x"}],
    "created_at": ["now", 0],
    "hash": ["x", "sha256:" + "0" * 64],
    "covariance_ref": ["x"],
    "unknown": [1],
}


@given(documents, st.data())
def test_one_corrupted_field_is_the_one_that_is_named(
    document: dict[str, Any], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(WRONG)))
    document[field] = data.draw(st.sampled_from(WRONG[field]))
    named = refused_fields(document)
    assert named
    assert {name.partition(".")[0] for name in named} == {field}


def every_path(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, item in items:
        yield from every_path(item, (*path, key))


@given(documents, json_values, st.data())
@settings(max_examples=200)
def test_any_value_anywhere_is_taken_or_refused_by_name_and_breaks_nothing(
    document: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    *way, last = data.draw(st.sampled_from(list(every_path(document))[1:]))
    inner = document
    for key in way:
        inner = inner[key]
    inner[last] = value
    with suppress(ContractViolation):
        assert json.loads(accept(document).body)


@given(st.dictionaries(st.sampled_from(sorted(WRONG)) | labels, json_values, max_size=6))
def test_any_object_is_a_snapshot_or_a_violation(document: dict[str, Any]) -> None:
    with suppress(ContractViolation):
        accept(document, world_id=None)
