"""
GET /metrics: all counts of all parts, as Prometheus text; GET /v1/metrics/<registry>: some, as dcos-net names them.

Parts give values; only here they become a library's. The registry is our own:
prometheus_client's global one could be filled by anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import attrs
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from zope.interface import implementer

from dcosnet.interfaces import IMetrics, IRestResource
from dcosnet.model.metric import Histogram, Metric
from dcosnet.model.rest import RestReply, RestRequest, refuse
from dcosnet.ops.registries import REGISTRIES, translate


@implementer(IRestResource)
@attrs.frozen
class Metrics:
    """The registry of this process: our parts, the process, and Python's garbage collector."""

    methods = frozenset({"GET"})
    local = False

    _registry: CollectorRegistry
    path: str = "/metrics"

    def respond(self, _request: RestRequest) -> RestReply:
        """The text format 0.0.4, which every scraper reads."""
        return RestReply(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)


@implementer(IRestResource)
@attrs.frozen
class Registry:
    """A registry of dcos-net's, for the dashboards that exist."""

    path = "/v1/metrics/<registry>"
    methods = frozenset({"GET"})
    local = False

    _parts: Sequence[IMetrics]

    def respond(self, request: RestRequest) -> RestReply:
        """The same format; 404 for a registry that is none of `ops.registries`."""
        name = request.arguments["registry"]
        if name not in REGISTRIES:
            known = ", ".join(sorted(REGISTRIES))
            return refuse(404, "Unknown Registry", f"{name} is none of dcos-net's that are here", f"ask for {known}")
        registry = CollectorRegistry()
        registry.register(Families(lambda: translate(name, _collect(self._parts))))
        return RestReply(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class Families(Collector):
    """Reads counts of ours when somebody scrapes."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Family]:
        """Every family, in the order that is given."""
        return map(family, self._collect())

    def describe(self) -> Iterator[Family]:
        """Nothing: registering must not ask parts that have not started."""
        return iter(())


def make_registry(parts: Sequence[IMetrics]) -> CollectorRegistry:
    """A registry of the parts' counts, process_* and python_gc_*."""
    registry = CollectorRegistry()
    registry.register(Families(lambda: _collect(parts)))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _collect(parts: Iterable[IMetrics]) -> Iterator[Metric]:
    return chain.from_iterable(part.collect() for part in parts)


def family(metric: Metric) -> Family:
    """A metric of ours in the library's type; a counter's name is without its suffix there."""
    name, kind = metric.name, metric.kind
    # The library gives each counter the suffix; of dcos-net's some have none, and are told without a type.
    counter = kind == "counter" and name.endswith("_total")
    made = Family(
        name.removesuffix("_total") if counter else name,
        metric.help,
        kind if counter or kind != "counter" else "unknown",
    )
    for sample in metric.samples:
        made.add_sample(metric.name, dict(sample.labels), sample.value)
    for labels, histogram in metric.histograms:
        _add_histogram(made, dict(labels), histogram)
    return made


def _add_histogram(made: Family, labels: dict[str, str], histogram: Histogram) -> None:
    if made.type == "summary":
        made.add_sample(f"{made.name}_count", labels, histogram.count)
        made.add_sample(f"{made.name}_sum", labels, histogram.sum)
        return
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        made.add_sample(f"{made.name}_bucket", {**labels, "le": floatToGoString(bound)}, total)
    made.add_sample(f"{made.name}_count", labels, total)
    made.add_sample(f"{made.name}_sum", labels, histogram.sum)
