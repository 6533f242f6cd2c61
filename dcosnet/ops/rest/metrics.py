"""
GET /metrics: all counts of all parts, as Prometheus text; GET /v1/metrics/<registry>: some, as dcos-net names them.

What the parts give is written by `exposition`; of prometheus_client are the
process_* and python_gc_* that every program has. Its global registry is not
used: it could be filled by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import attrs
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from twisted.internet.defer import Deferred
from zope.interface import implementer

from dcosnet.interfaces import IMetrics, IRestResource
from dcosnet.model.cell import Later
from dcosnet.model.metric import Metric
from dcosnet.model.rest import RestReply, RestRequest, refuse
from dcosnet.ops.exposition import CONTENT_TYPE, lines
from dcosnet.ops.registries import REGISTRIES, translate
from dcosnet.ops.slices import gather

LINES = 500
"""Written in one turn: about a millisecond."""


@implementer(IRestResource)
@attrs.frozen
class Metrics:
    """Our parts, the process, and Python's garbage collector."""

    methods = frozenset({"GET"})
    local = False

    _parts: Sequence[IMetrics]
    _process: CollectorRegistry
    _later: Later
    path: str = "/metrics"

    def respond(self, _request: RestRequest) -> RestReply | Deferred[RestReply]:
        """The text format 0.0.4, which every scraper reads."""
        return _reply(chain(_text(_collect(self._parts)), self._of_process()), self._later)

    def _of_process(self) -> Iterator[str]:
        yield generate_latest(self._process).decode()


@implementer(IRestResource)
@attrs.frozen
class Registry:
    """A registry of dcos-net's, for the dashboards that exist."""

    path = "/v1/metrics/<registry>"
    methods = frozenset({"GET"})
    local = False

    _parts: Sequence[IMetrics]
    _later: Later

    def respond(self, request: RestRequest) -> RestReply | Deferred[RestReply]:
        """The same format; 404 for a registry that is none of `ops.registries`."""
        name = request.arguments["registry"]
        if name not in REGISTRIES:
            known = ", ".join(sorted(REGISTRIES))
            return refuse(404, "Unknown Registry", f"{name} is none of dcos-net's that are here", f"ask for {known}")
        return _reply(_text(translate(name, _collect(self._parts))), self._later)


def process_registry() -> CollectorRegistry:
    """The process_* and python_gc_* of prometheus_client."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _reply(text: Iterator[str], later: Later) -> RestReply | Deferred[RestReply]:
    found = gather(text, LINES, later)
    return _whole(found) if isinstance(found, list) else found.addCallback(_whole)


def _whole(text: Sequence[str]) -> RestReply:
    return RestReply("".join(text), content_type=CONTENT_TYPE)


def _collect(parts: Iterable[IMetrics]) -> Iterator[Metric]:
    return chain.from_iterable(part.collect() for part in parts)


def _text(metrics: Iterable[Metric]) -> Iterator[str]:
    return chain.from_iterable(map(lines, metrics))
