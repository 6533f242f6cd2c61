"""
Metrics as Prometheus text, format 0.0.4.

Pure. prometheus_client writes the same, but some ten times slower, and all at
once: ten thousand samples would keep the process from its traffic for a third
of a second. Here they are lines that may be asked for a few at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from prometheus_client.utils import floatToGoString

from dcosnet.model.metric import Histogram, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def lines(metric: Metric) -> Iterator[str]:
    """A family, each line with its end."""
    name, kind = metric.name, metric.kind
    yield f"# HELP {name} {metric.help.translate(_HELP)}\n"
    yield f"# TYPE {name} {kind}\n"
    for sample in metric.samples:
        yield f"{name}{_labels(sample.labels)} {number(sample.value)}\n"
    for labels, histogram in metric.histograms:
        yield from _histogram(name, labels, histogram, buckets=kind == "histogram")


def number(value: float) -> str:
    """As Go writes it, which Prometheus is written in."""
    return f"{value}.0" if type(value) is int and -1_000_000 < value < 1_000_000 else floatToGoString(value)


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram, *, buckets: bool) -> Iterator[str]:
    if buckets:
        # The labels that sort before and after "le", made once for all buckets.
        before = "".join(f"{_pair(key, value)}," for key, value in sorted(labels.items()) if key < "le")
        after = "".join(f",{_pair(key, value)}" for key, value in sorted(labels.items()) if key > "le")
        total = 0
        for bound, count in zip((*histogram.bounds, inf), histogram.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{before}le="{floatToGoString(bound)}"{after}}} {number(total)}\n'
    told = _labels(labels)
    yield f"{name}_count{told} {number(histogram.count)}\n"
    yield f"{name}_sum{told} {number(histogram.sum)}\n"


_VALUE = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_HELP = str.maketrans({"\\": "\\\\", "\n": "\\n"})


def _labels(labels: Mapping[str, str]) -> str:
    return f"{{{','.join(_pair(key, value) for key, value in sorted(labels.items()))}}}" if labels else ""


def _pair(key: str, value: str) -> str:
    return f'{key}="{value.translate(_VALUE)}"'
