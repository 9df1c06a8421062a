"""What the API's page of metrics says of the last minutes."""

from typing import Any

import pytest

from riskhub.alerts.facts import Counted
from riskhub.alerts.pages import Window, counters_of

PAGE = """\
# HELP riskhub_http_requests_total Answered requests.
# TYPE riskhub_http_requests_total counter
riskhub_http_requests_total{method="GET",route="/a",status="200"} 100.0
riskhub_http_requests_total{method="GET",route="/a",status="500"} %d
riskhub_http_requests_total{method="GET",route="/readyz",status="503"} %d
riskhub_http_requests_total{method="GET",route="/a",status="401"} %d
# TYPE riskhub_blob_failures_total counter
riskhub_blob_failures_total{kind="missing"} %d
risk_hub_snapshot_lag_seconds{stage="live",world_id="a\\"b"} 3.0
"""


def page(errors: int = 0, unready: int = 0, unauthorized: int = 0, missing: int = 0) -> Any:
    return counters_of(PAGE % (errors, unready, unauthorized, missing))


def test_what_was_counted_before_the_first_look_was_not_counted_now() -> None:
    assert Window(300).add(page(7, 0, 7, 7), 0.0) == Counted(0, 0, {})


def test_what_rises_counts_for_the_length_of_the_window() -> None:
    window = Window(300)
    window.add(page(7), 0.0)
    assert window.add(page(9, 0, 1, 2), 10.0) == Counted(2, 1, {"missing": 2})
    assert window.add(page(10, 0, 1, 2), 100.0) == Counted(3, 1, {"missing": 2})
    assert window.add(page(10, 0, 1, 2), 309.0).server_errors == 3
    assert window.add(page(10, 0, 1, 2), 310.0) == Counted(1, 0, {})
    assert window.add(page(10, 0, 1, 2), 400.0) == Counted(0, 0, {})


def test_an_api_that_was_started_anew_counts_from_nothing() -> None:
    window = Window(300)
    window.add(page(100), 0.0)
    assert window.add(page(3), 10.0).server_errors == 3


def test_a_series_that_was_not_there_began_at_nothing() -> None:
    window = Window(300)
    window.add({}, 0.0)
    assert window.add(page(2), 1.0).server_errors == 2


def test_not_being_ready_is_no_failed_request() -> None:
    window = Window(300)
    window.add(page(), 0.0)
    assert window.add(page(unready=50), 1.0).server_errors == 0


@pytest.mark.parametrize("text", ["", "nothing of ours 1\n"])
def test_a_page_of_something_else_has_no_counters(text: str) -> None:
    assert counters_of(text) == {}
