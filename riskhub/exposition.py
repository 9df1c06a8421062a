"""Families of metrics as the text that Prometheus reads: what `generate_latest` writes, sooner.

The library looks at each label of each sample with regular expressions. Names of ours are what they
are; only values need care. With a thousand worlds that is a good part of what a scrape costs.
"""

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

_SPECIAL = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_SPECIAL_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_SHORT = 1e6  # below it Python and Go write a number alike


def render(families: Iterable[Metric]) -> bytes:
    """The page of these counters, gauges and histograms, in the text format 0.0.4."""
    lines: list[str] = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"# HELP {name} {family.documentation.translate(_SPECIAL_IN_HELP)}\n")
        lines.append(f"# TYPE {name} {family.type}\n")
        for sample in family.samples:
            labels = ""
            if sample.labels:
                pairs = [
                    f'{label}="{value.translate(_SPECIAL)}"'
                    for label, value in sorted(sample.labels.items())
                ]
                labels = f"{{{','.join(pairs)}}}"
            lines.append(f"{sample.name}{labels} {_number(float(sample.value))}\n")
    return "".join(lines).encode()


def _number(value: float) -> str:
    if -_SHORT < value < _SHORT:
        return repr(value)
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text
