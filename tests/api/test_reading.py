"""Latest, list and lookup: the stored bodies byte for byte, and questions that make no sense."""

from datetime import timedelta

import httpx
import pytest
from answers import READS, SNAPSHOTS, fields_of, post, problem_of
from asgi import Api
from builders import HEADERS, WORLD, Clock, raw_document

from riskhub.snapshot import format_instant


def test_where_there_is_nothing_it_is_404_and_the_list_empty(api: Api) -> None:
    for url in ("latest", "lookup?version=v1", "lookup?as_of=2026-01-31T21:00:00Z"):
        assert WORLD in problem_of(api.get(f"{SNAPSHOTS}/{url}"), 404)["detail"]
    assert api.get(SNAPSHOTS).json() == {"snapshots": [], "next": None}
    assert problem_of(api.get("/nowhere"), 404)


def test_latest_is_by_instant_and_filters_by_stage_and_actor(api: Api) -> None:
    post(api, version="newest", as_of="2026-01-31T22:00:00+01:00")
    post(api, version="later text", as_of="2026-01-31T21:59:00+01:00")
    live = HEADERS | {"X-Stage": "live", "X-Actor": "other"}
    old = raw_document(version="live", as_of="2026-01-31T19:00:00Z")
    api.post(SNAPSHOTS, content=old, headers=live)

    def version(query: str = "") -> str:
        return str(api.get(f"{SNAPSHOTS}/latest{query}").json()["version"])

    assert version() == version("?stage=paper") == version("?actor=optimizer") == "newest"
    assert version("?stage=live") == version("?actor=other") == "live"
    assert problem_of(api.get(f"{SNAPSHOTS}/latest?stage=live&actor=optimizer"), 404)
    listed = api.get(f"{SNAPSHOTS}?stage=live").json()["snapshots"]
    assert [snapshot["version"] for snapshot in listed] == ["live"]


def test_the_expired_are_gone_unless_asked_for(api: Api, clock: Clock) -> None:
    posted = post(api, ttl_sec=60)
    clock.advance(60)
    for url in (f"{SNAPSHOTS}/latest?", f"{SNAPSHOTS}/lookup?version=v1&"):
        assert problem_of(api.get(url), 404)
        assert api.get(f"{url}include_expired=true").content == posted.content
    assert api.get(SNAPSHOTS).json()["snapshots"] == []
    assert api.get(f"{SNAPSHOTS}?include_expired=true").json()["snapshots"] == [posted.json()]
    assert post(api, ttl_sec=60).status_code == 200  # a retry is a retry, also after the expiry


def test_the_next_link_leads_through_everything_once_and_keeps_the_question(api: Api) -> None:
    for number in range(7):
        post(api, version=f"v {number}")
    url, walked = f"{SNAPSHOTS}?limit=3&stage=paper&include_expired=true", []
    pages = 0
    while url:
        response = api.get(url)
        pages += 1
        walked += [snapshot["version"] for snapshot in response.json()["snapshots"]]
        following = response.links.get("next", {}).get("url")
        assert (following is None) == (response.json()["next"] is None)
        if following:
            assert {"stage=paper", "include_expired=true", "limit=3"} <= set(
                following.partition("?")[2].split("&")
            )
        url = following
    assert walked == [f"v {number}" for number in reversed(range(7))]
    assert pages == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=many", "limit"),
        ("?cursor=x", "cursor"),
        ("?cursor=%FF", "cursor"),
        ("?cursor=%C3%A4", "cursor"),
        ("?cursor=MjAyNi0wMS0zMVQyMTowMDowMFovLTE=", "cursor"),  # position -1
        ("?include_expired=maybe", "include_expired"),
        ("?stage=%00", "stage"),
        ("/latest?actor=a%00b", "actor"),
        ("/lookup?version=%00", "version"),
        ("/lookup", "version"),
        ("/lookup?version=v1&as_of=2026-01-31T21:00:00Z", "version"),
        ("/lookup?as_of=2026-01-31", "as_of"),
        ("/lookup?as_of=2026-01-31T21:00:00+00:00", "as_of"),  # a bare plus is a space in a query
    ],
)
def test_a_question_that_makes_no_sense_is_422_and_names_the_parameter(
    api: Api, query: str, field: str
) -> None:
    assert fields_of(api.get(SNAPSHOTS + query), 422) == [field]


def test_lookup_by_instant_is_the_newest_at_or_before_it(api: Api) -> None:
    for hour in (18, 20, 19):
        post(api, version=str(hour), as_of=f"2026-01-31T{hour}:00:00Z")

    def version(as_of: str) -> str:
        response = api.get(f"{SNAPSHOTS}/lookup", params={"as_of": as_of})
        return str(response.json()["version"])

    assert version("2026-01-31T21:00:00+01:00") == "20"
    assert version("2026-01-31T19:59:59Z") == "19"
    assert problem_of(api.get(f"{SNAPSHOTS}/lookup?as_of=2026-01-31T17:59:59Z"), 404)


def test_lookup_at_a_known_instant_answers_what_the_hub_would_have_said(
    api: Api, clock: Clock
) -> None:
    first = post(api, version="first", as_of="2026-01-31T20:00:00Z", ttl_sec=3_600)
    moments = [format_instant(clock())]
    clock.advance(60)
    late = post(api, version="late", as_of="2026-01-31T19:00:00Z", ttl_sec=86_400)
    clock.advance(60)
    correction = post(api, version="correction", as_of="2026-01-31T20:00:00Z")
    clock.advance(60)
    moments.append(format_instant(clock()))
    clock.advance(3_600)

    def known(as_of: str, known_at: str, **others: str) -> httpx.Response:
        return api.get(
            f"{SNAPSHOTS}/lookup", params={"as_of": as_of, "known_at": known_at, **others}
        )

    noon, evening = "2026-01-31T19:30:00Z", "2026-01-31T21:00:00Z"
    assert known(evening, moments[0]).content == first.content
    assert problem_of(known(noon, moments[0]), 404)
    assert known(evening, moments[1]).content == correction.content
    assert known(noon, moments[1]).content == late.content
    assert problem_of(known(evening, "2026-01-31T21:04:59.999999Z"), 404)
    # By now the correction and the first have expired, which they had not then.
    assert known(evening, format_instant(clock())).content == late.content
    told = known(evening, format_instant(clock()), include_expired="true")
    assert told.content == correction.content


def test_one_version_at_a_known_instant_is_there_from_its_receipt_to_its_expiry(
    api: Api, clock: Clock
) -> None:
    posted = post(api, ttl_sec=60)
    received = clock.now

    def known(seconds: float) -> httpx.Response:
        known_at = format_instant(received + timedelta(seconds=seconds))
        return api.get(f"{SNAPSHOTS}/lookup", params={"version": "v1", "known_at": known_at})

    clock.advance(86_400)
    assert problem_of(known(-1), 404)
    assert known(0).content == known(59).content == posted.content
    assert problem_of(known(60), 404)


def test_lookup_by_instant_filters_by_stage_and_actor(api: Api) -> None:
    post(api, version="paper", as_of="2026-01-31T20:00:00Z")
    live = raw_document(version="live", as_of="2026-01-31T19:00:00Z")
    headers = {"X-Stage": "live", "X-Actor": "other"}
    assert api.post(SNAPSHOTS, content=live, headers=headers).status_code == 201

    def version(query: str) -> str:
        response = api.get(f"{SNAPSHOTS}/lookup?as_of=2026-01-31T21:00:00Z{query}")
        return str(response.json()["version"])

    assert version("") == version("&stage=paper") == version("&actor=optimizer") == "paper"
    assert version("&stage=live") == version("&actor=other") == "live"
    url = f"{SNAPSHOTS}/lookup?as_of=2026-01-31T21:00:00Z&stage=live&actor=optimizer"
    assert problem_of(api.get(url), 404)


def test_list_is_bounded_by_as_of_both_ends_included(api: Api) -> None:
    for hour in range(15, 21):
        post(api, version=str(hour), as_of=f"2026-01-31T{hour}:00:00Z")

    def hours(**bounds: str) -> list[str]:
        response = api.get(SNAPSHOTS, params=bounds)
        return [snapshot["version"] for snapshot in response.json()["snapshots"]]

    assert hours(as_of_from="2026-01-31T19:00:00Z") == ["20", "19"]
    assert hours(as_of_to="2026-01-31T16:00:00Z") == ["16", "15"]
    assert hours(as_of_from="2026-01-31T18:00:00+01:00", as_of_to="2026-01-31T18:00:00Z") == [
        "18",
        "17",
    ]
    assert hours(as_of_from="2026-01-31T18:00:00.000001Z", as_of_to="2026-01-31T18:59:59Z") == []
    assert hours(as_of_from="2026-01-31T19:00:00Z", as_of_to="2026-01-31T16:00:00Z") == []


def test_the_next_link_keeps_every_filter(api: Api) -> None:
    for number in range(9):
        post(api, version=str(number), as_of=f"2026-01-31T1{number}:00:00Z")
        other = raw_document(version=f"other {number}", as_of=f"2026-01-31T1{number}:00:00Z")
        api.post(SNAPSHOTS, content=other, headers={"X-Actor": "other"})
    asked = {
        "limit": "2",
        "actor": "optimizer",
        "stage": "paper",
        "as_of_from": "2026-01-31T12:00:00+00:00",
        "as_of_to": "2026-01-31T16:30:00+00:00",
        "expand": "true",
    }
    response, walked = api.get(SNAPSHOTS, params=asked), []
    while True:
        walked += [snapshot["version"] for snapshot in response.json()["snapshots"]]
        url = response.links.get("next", {}).get("url")
        if url is None:
            break
        query = dict(httpx.URL(url).params)
        assert query.pop("cursor") == response.json()["next"]
        assert query == asked
        response = api.get(url)
    assert walked == ["6", "5", "4", "3", "2"]


@pytest.mark.parametrize("route", ["/latest", "", "/lookup"])
def test_a_parameter_that_there_is_not_is_422_and_named(api: Api, route: str) -> None:
    version = "&version=v1" if route == "/lookup" else ""
    response = api.get(f"{SNAPSHOTS}{route}?stages=paper{version}")
    assert fields_of(response, 422) == ["stages"]
    assert "stage" in response.json()["detail"]  # what it may have meant


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("/latest?stage=paper&stage=live", "stage"),
        ("/latest?limit=1", "limit"),
        ("/latest?as_of=2026-01-31T21:00:00Z", "as_of"),
        ("?limit=1&limit=1", "limit"),
        ("?version=v1", "version"),
        ("?as_of_from=yesterday", "as_of_from"),
        ("?as_of_to=2026-01-31", "as_of_to"),
        ("/lookup?version=v1&version=v2", "version"),
        ("/lookup?version=v1&known_at=then", "known_at"),
        ("/lookup?version=v1&stage=paper", "stage"),
        ("/lookup?version=v1&actor=optimizer", "actor"),
        ("/lookup?version=v1&expand=maybe", "expand"),
    ],
)
def test_a_parameter_out_of_place_is_422_and_named(api: Api, query: str, named: str) -> None:
    post(api)
    assert fields_of(api.get(SNAPSHOTS + query), 422) == [named]


@pytest.mark.parametrize(
    "url", [*READS, f"{SNAPSHOTS}/lookup?version=none", f"{SNAPSHOTS}?limit=0", "/healthz"]
)
def test_a_head_request_has_the_head_of_the_answer_and_no_body(api: Api, url: str) -> None:
    post(api)
    of_one = {"X-Request-Id": "one"}  # else each has an id of its own
    asked, head = api.get(url, headers=of_one), api.request("HEAD", url, headers=of_one)
    assert (head.status_code, head.content) == (asked.status_code, b"")
    assert head.headers == asked.headers


@pytest.mark.parametrize("url", READS)
def test_what_holds_no_reference_is_the_same_expanded(api: Api, url: str) -> None:
    post(api, covariance={"BAC,BAC": 0.1, "JPM,JPM": 0.2})
    separator = "&" if "?" in url else "?"
    expanded = api.get(f"{url}{separator}expand=true")
    assert expanded.status_code == 200
    assert expanded.content == api.get(url).content
