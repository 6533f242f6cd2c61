"""
GET /metrics: all counts of all parts, as Prometheus text.

Parts give values; only here they become a library's. The registry is our own:
prometheus_client's global one could be filled by anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from zope.interface import implementer

from dcosnet.interfaces import IMetrics, IRestResource
from dcosnet.model.metric import Histogram, Metric
from dcosnet.model.rest import RestReply, RestRequest


@implementer(IRestResource)
@attrs.frozen
class Metrics:
    """The registry of this process: our parts, the process, and Python's garbage collector."""

    path = "/metrics"
    methods = frozenset({"GET"})
    local = False

    _registry: CollectorRegistry

    def respond(self, _request: RestRequest) -> RestReply:
        """The text format 0.0.4, which every scraper reads."""
        return RestReply(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)


class PartsCollector(Collector):
    """Reads the parts' counts when somebody scrapes."""

    def __init__(self, parts: Sequence[IMetrics]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Family]:
        """Every family of every part, in the order of assembly."""
        for part in self._parts:
            for metric in part.collect():
                yield family(metric)

    def describe(self) -> Iterator[Family]:
        """Nothing: registering must not ask parts that have not started."""
        return iter(())


def make_registry(parts: Sequence[IMetrics]) -> CollectorRegistry:
    """A registry of the parts' counts, process_* and python_gc_*."""
    registry = CollectorRegistry()
    registry.register(PartsCollector(parts))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def family(metric: Metric) -> Family:
    """A metric of ours in the library's type; a counter's name is without its suffix there."""
    made = Family(
        metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name, metric.help, metric.kind
    )
    for sample in metric.samples:
        made.add_sample(metric.name, dict(sample.labels), sample.value)
    for labels, histogram in metric.histograms:
        _add_histogram(made, dict(labels), histogram)
    return made


def _add_histogram(made: Family, labels: dict[str, str], histogram: Histogram) -> None:
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        made.add_sample(f"{made.name}_bucket", {**labels, "le": floatToGoString(bound)}, total)
    made.add_sample(f"{made.name}_count", labels, total)
    made.add_sample(f"{made.name}_sum", labels, histogram.sum)
