"""What a monitoring plugin says of a hub's worlds, by what the hub answers."""

import json
import re
from typing import Any

import httpx
import pytest

from riskhub.monitor import HubUnknown, Verdict, look

PERFORMANCE = re.compile(r"^('[^'=]+'|[^'= ]+)=(U|[0-9]+s);[0-9.]+;[0-9.]+$")
"""As the Monitoring Plugins guidelines have it."""


def world(name: str, age: float | None = 12, **fields: Any) -> dict[str, Any]:
    """A world as the hub tells of it."""
    return {
        **{"world_id": name, "stage": "paper", "state": "fresh", "severity": "ok"},
        **{"newest_as_of": "2026-01-31T21:00:00.000000Z", "age_seconds": age},
        **{"open_age_seconds": age, "served": True, "stale_after_sec": 600},
        **{"critical_after_sec": 1800, "calendar": "24/7", "note": None},
    } | fields


LATE = world("late", 700, state="stale", severity="warning")
TOO_LATE = world("too-late", 2_101, state="expired", severity="critical", served=False)
NEVER = world("never", None, state="missing", severity="critical", newest_as_of=None, served=False)
HISTORY = world("history", 1e8, stage="backtest", state="exempt", served=False)


def judged(*told: dict[str, Any], worlds: tuple[str, ...] = (), **asked: Any) -> Verdict:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/risk-hub/freshness"
        which = dict(request.url.params)
        found = [
            each
            for each in told
            if which.get("world", each["world_id"]) == each["world_id"]
            and which.get("stage", each["stage"]) == each["stage"]
        ]
        return httpx.Response(200, json={"worlds": found})

    with client(answer) as hub:
        return look(hub, worlds, **asked)


def client(answer: Any) -> httpx.Client:
    return httpx.Client(base_url="http://hub", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("told", "severity", "lines"),
    [
        (
            [world("w1")],
            "ok",
            ["OK - w1 paper 12 s old | age_w1_paper=12s;600;1800", "OK w1 paper 12 s old"],
        ),
        (
            [world("w1"), world("w2", 34.4, stale_after_sec=90), HISTORY],
            "ok",
            [
                "OK - 3 worlds ok, the oldest: w2 paper 34 s old"
                " | age_w1_paper=12s;600;1800 age_w2_paper=34s;90;1800",
                "OK w1 paper 12 s old",
                "OK w2 paper 34 s old",
                "OK history backtest 100,000,000 s old, exempt",
            ],
        ),
        (
            [LATE, world("w1")],
            "warning",
            [
                "WARNING - 1 of 2 worlds: late paper 700 s old, stale"
                " | age_late_paper=700s;600;1800 age_w1_paper=12s;600;1800",
                "WARNING late paper 700 s old, stale",
                "OK w1 paper 12 s old",
            ],
        ),
        (
            [TOO_LATE],
            "critical",
            [
                "CRITICAL - too-late paper 2,101 s old, expired"
                " | age_too-late_paper=2101s;600;1800",
                "CRITICAL too-late paper 2,101 s old, expired",
            ],
        ),
        (
            [NEVER, TOO_LATE, LATE],
            "critical",
            [
                "CRITICAL - 3 of 3 worlds: never paper missing; too-late paper 2,101 s old,"
                " expired; late paper 700 s old, stale"
                " | age_never_paper=U;600;1800 age_too-late_paper=2101s;600;1800"
                " age_late_paper=700s;600;1800",
                "CRITICAL never paper missing",
                "CRITICAL too-late paper 2,101 s old, expired",
                "WARNING late paper 700 s old, stale",
            ],
        ),
        ([HISTORY], "ok", ["OK - history backtest 100,000,000 s old, exempt"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_summary_comes_first_then_a_line_a_world(
    told: list[dict[str, Any]], severity: str, lines: list[str]
) -> None:
    verdict = judged(*told)
    assert verdict.severity == severity
    assert verdict.lines()[: len(lines)] == lines
    assert len(verdict.lines()) == len(told) + 1


def test_exit_codes_are_those_of_plugins() -> None:
    found = [judged(one).severity.rank for one in (world("w"), LATE, TOO_LATE, NEVER, HISTORY)]
    assert found == [0, 1, 2, 2, 0]


def test_of_one_stage_the_label_of_performance_data_is_the_world() -> None:
    first = judged(TOO_LATE, stage="paper").lines()[0]
    assert first.endswith(" | age_too-late=2101s;600;1800")


def test_many_late_worlds_are_named_in_their_lines() -> None:
    late = [world(f"w{number}", 700, state="stale", severity="warning") for number in range(5)]
    first, *others = judged(*late).lines()
    assert first.startswith("WARNING - 5 of 5 worlds: w0 paper 700 s old, stale; w1")
    assert "; ... | " in first
    assert len(others) == 5


@pytest.mark.parametrize("stage", ["a b", "it's", "x=1", "a|b", "größe"])
def test_no_stage_breaks_the_format(stage: str) -> None:
    first, second = judged(world("w", stage=stage)).lines()
    text, performance = first.split(" | ")
    assert "|" not in text + second
    assert PERFORMANCE.match(performance), performance


@pytest.mark.parametrize(
    ("asked", "state", "severity"),
    [
        ({}, "fresh", "ok"),
        ({"warn_seconds": 12}, "fresh", "ok"),
        ({"warn_seconds": 11}, "stale", "warning"),
        ({"warn_seconds": 5, "crit_seconds": 11}, "critical", "critical"),
        ({"crit_seconds": 11}, "critical", "critical"),
    ],
)
def test_limits_that_are_given_hold_instead_of_the_hubs(
    asked: dict[str, float], state: str, severity: str
) -> None:
    (found,) = judged(world("w1"), **asked).worlds
    assert (found.state, found.severity) == (state, severity)
    lenient = judged(TOO_LATE, NEVER, HISTORY, warn_seconds=9_000, crit_seconds=9_999).worlds
    assert [each.state for each in lenient] == ["missing", "fresh", "exempt"]


def test_a_world_that_the_hub_does_not_know_is_missing() -> None:
    verdict = judged(world("w1"), LATE, worlds=("w1", "nowhere", "nowhere"))
    assert [(each.world_id, each.state) for each in verdict.worlds] == [
        ("nowhere", "missing"), ("w1", "fresh"),
    ]  # fmt: skip
    assert verdict.lines()[1] == "CRITICAL nowhere missing"
    (only,) = judged(world("w1"), worlds=("w1",), stage="live").worlds
    assert (only.stage, only.state) == ("live", "missing")


def test_open_hours_are_told_beside_the_clock_and_what_is_not_served_is_told() -> None:
    closed = world("desk", 90_000, open_age_seconds=120, calendar="XNYS", served=False)
    assert judged(closed).lines()[1] == (
        "OK desk paper 120 s old in XNYS hours (90,000 s by the clock); expired, so nothing is "
        "served"
    )
    unknown = world("desk", 30, calendar="XNYS", note="XNYS is known to 2027")
    assert judged(unknown).lines()[1] == "OK desk paper 30 s old; XNYS is known to 2027"


def test_as_json_it_is_all_there() -> None:
    told = json.loads(judged(LATE, world("w1")).as_json())
    assert {name: told[name] for name in ("status", "exit_code", "summary")} == {
        **{"status": "warning", "exit_code": 1},
        "summary": "1 of 2 worlds: late paper 700 s old, stale",
    }
    assert [each["world_id"] for each in told["worlds"]] == ["late", "w1"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(401, json={"detail": "the bearer token is missing or wrong"}),
         "http://hub answers 401: the bearer token is missing or wrong"),
        (httpx.Response(403, json={"detail": "this token does not allow to read"}),
         "http://hub answers 403: this token does not allow to read"),
        (httpx.Response(404, text="nginx"),
         "http://hub has no /risk-hub/freshness: it is no hub, or one of before there was"),
        (httpx.Response(503, text="<html>"), "http://hub answers 503: Service Unavailable"),
        (httpx.Response(500, json=[1]), "http://hub answers 500: Internal Server Error"),
        (httpx.Response(302, headers={"Location": "/login"}), "http://hub answers 302: Found"),
        (httpx.Response(200, text="<html>"), "http://hub does not answer as a hub does"),
        (httpx.Response(200, json=[]), "http://hub does not answer as a hub does"),
        (httpx.Response(200, json={"worlds": [{}]}), "http://hub does not answer as a hub does"),
        (httpx.Response(200, json={"worlds": None}), "http://hub does not answer as a hub does"),
        (httpx.Response(200, json={"worlds": []}), "http://hub has no worlds"),
    ],
)  # fmt: skip
def test_what_can_not_be_known_is_unknown_in_one_sentence(answer: httpx.Response, why: str) -> None:
    with client(lambda _: answer) as hub, pytest.raises(HubUnknown) as raised:
        look(hub)
    assert str(raised.value) == why


def test_a_hub_that_is_silent_is_unknown() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    with client(silent) as hub, pytest.raises(HubUnknown, match="can't be reached: ReadTimeout"):
        look(hub)
