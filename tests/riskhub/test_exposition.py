"""The page is what the library would write, and Prometheus reads from it what was put in."""

import math
from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from riskhub.exposition import render

numbers = st.floats() | st.integers(-(2**60), 2**60) | st.booleans()
samples = st.lists(st.tuples(st.text(), st.text(), numbers), max_size=5)


class Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def families(about: str, of_it: list[tuple[str, str, float]]) -> list[Metric]:
    gauge = GaugeMetricFamily("a_gauge", about, labels=("world_id", "stage"))
    counter = CounterMetricFamily("a_counter_total", about, labels=("stage", "kind"))
    for one, other, value in of_it:
        gauge.add_metric((one, other), value)
        counter.add_metric((one, other), value)
    return [gauge, counter, GaugeMetricFamily("without_labels", about, value=1.5)]


@given(st.text(), samples)
def test_it_is_what_the_library_writes(about: str, of_it: list[tuple[str, str, float]]) -> None:
    made = families(about, of_it)
    assert render(made) == generate_latest(Families(made))


def test_so_are_metrics_that_count() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call] # as telemetry does
    registry = CollectorRegistry()
    Counter("a_total", "A counter.", ("kind",), registry=registry).labels('wi"th\n\\').inc(3)
    Gauge("b", "A gauge.", registry=registry).set(math.inf)
    Histogram("c_seconds", "A histogram.", ("route",), registry=registry).labels("/x").observe(0.3)
    assert render(registry.collect()) == generate_latest(registry)


@given(
    st.lists(st.tuples(st.text(), st.text(), st.integers(0, 2**50)), unique_by=lambda it: it[:2])
)
def test_prometheus_reads_from_it_what_was_put_in(of_it: list[tuple[str, str, float]]) -> None:
    page = render(families("about", of_it)).decode()
    read = {
        (sample.labels["world_id"], sample.labels["stage"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "a_gauge"
    }
    assert read == {(one, other): value for one, other, value in of_it}
