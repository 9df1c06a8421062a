"""Where traces begin, and that they cost nothing where nobody collects them."""

import subprocess
import sys
from http import HTTPStatus
from typing import Any

import pytest
from collecting import Collector, collecting
from handling import record_of
from hypothesis import given
from hypothesis import strategies as st

from riskhub import traces
from riskhub.controlbus.events import Event, parse
from riskhub.otel import Otel
from riskhub.traces import Origin

_LOADED = """
import sys
from riskhub import traces
from riskhub.cli import worker, relay
traces.configure("worker")
with traces.span("x"), traces.of_events("y", []): pass
assert traces.traces() is None
# Redis' client imports the SDK for itself where it finds it.
assert not {"riskhub.otel", "opentelemetry.exporter"} & sys.modules.keys()
"""


@given(st.uuids().map(str))
def test_a_trace_follows_from_its_event(event_id: str) -> None:
    origin = Origin.of(event_id)
    assert origin == Origin.of(event_id)
    assert 0 < origin.trace_id < 2**128
    assert 0 < origin.span_id < 2**64


def test_without_a_collector_nothing_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Collects what is told within this process."""
    with collecting() as collector:
        for name, value in collector.environment().items():
            monkeypatch.setenv(name, value)
        yield collector


def event(world: str, number: int) -> Event:
    return parse(record_of(world, number).raw)


def test_what_fails_is_recorded_in_the_trace_of_each_event(
    collected: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    otel = Otel("worker")
    monkeypatch.setattr(traces, "_on", otel)
    events = [event("a", 1), event("b", 2)]
    with pytest.raises(ZeroDivisionError), traces.of_events("numbers", events):
        1 / 0  # noqa: B018
    traces.flush()
    spans = collected.named("numbers")
    assert [(span.failed, span.events) for span in spans] == [(True, ("exception",))] * 2
    assert [int(span.trace, 16) for span in spans] == [
        Origin.of(one.correlation_id).trace_id for one in events
    ]
    (batch,) = collected.named("numbers batch")
    assert batch.failed


def test_a_failed_request_says_so(collected: Collector) -> None:
    otel = Otel("api")
    status: dict[str, str | int] = {"http.response.status_code": HTTPStatus.SERVICE_UNAVAILABLE}
    otel.answered(otel.request({}), "POST /x", status, None)
    otel.answered(otel.request({}), "POST /y", {}, ValueError("of a payload"))
    otel.flush()
    assert [(span.name, span.failed) for span in collected.spans] == [
        ("POST /x", True), ("POST /y", True),
    ]  # fmt: skip
    assert "of a payload" not in str(collected.spans)


@pytest.mark.parametrize("ratio", ["0", "0.5", "1"])
def test_all_processes_agree_which_traces_are_kept(
    collected: Collector, monkeypatch: pytest.MonkeyPatch, ratio: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    api, worker = Otel("api"), Otel("worker")
    events = [event("a", number) for number in range(60)]
    for one in events:
        request = api.request({})
        api.landed(request, one.correlation_id, request.started, {}, new=True)
        api.answered(request, "POST", {}, None)
        with worker.of_events("numbers", [one]):
            pass
    api.flush()
    worker.flush()
    of_names = [
        {span.trace for span in collected.named(name)} for name in ("land", "numbers", "POST")
    ]
    assert of_names[0] == of_names[1] == of_names[2]
    assert {"0": 0, "1": 60}.get(ratio, len(of_names[0])) == len(of_names[0])
    if ratio == "0.5":
        assert 10 < len(of_names[0]) < 50
