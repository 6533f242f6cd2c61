"""
What the server counts: plain integers, read when somebody asks.

A hot answer costs one addition; sums are made here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from zope.interface import implementer

from dcosnet.dns.answers import Answers
from dcosnet.dns.query import Rcode
from dcosnet.interfaces import IMetrics
from dcosnet.model.metric import Metric, Sample


class Counts:
    """
    Counters since the start.

    `ready` counts answers that were ready, by rcode; `replies` all others, by
    rcode as it stands in the header. Keys of the Counters are from closed sets.
    """

    def __init__(self) -> None:
        self.ready = [0] * 16
        self.replies = [0] * 16
        self.queries: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.upstream_failures: Counter[str] = Counter()
        self.forwarded = 0
        self.shed = 0


@implementer(IMetrics)
class DnsMetrics:
    """The families of the `dns` part."""

    name = "dns"

    def __init__(self, counts: Counts, answers: Answers, unsent: Callable[[], int]) -> None:
        self._counts = counts
        self._answers = answers
        self._unsent = unsent

    def collect(self) -> Iterable[Metric]:
        """The families as they stand."""
        counts = self._counts
        hits = sum(counts.ready)
        queries = {"udp": hits + counts.queries["udp"], "tcp": counts.queries["tcp"]}
        yield Metric(
            "dcosnet_dns_queries_total",
            "Messages that came in.",
            "counter",
            [Sample(value, {"protocol": protocol}) for protocol, value in queries.items()],
        )
        yield Metric(
            "dcosnet_dns_replies_total",
            "Replies by rcode.",
            "counter",
            [
                Sample(counts.ready[code] + counts.replies[code], {"rcode": _rcode_name(code)})
                for code in range(16)
                if code <= Rcode.REFUSED or counts.ready[code] + counts.replies[code]
            ],
        )
        yield Metric("dcosnet_dns_ready_answers", "Answers kept ready.", "gauge", [Sample(len(self._answers))])
        yield Metric("dcosnet_dns_ready_hits_total", "Queries answered from them.", "counter", [Sample(hits)])
        yield Metric(
            "dcosnet_dns_forwarded_total", "Questions asked of upstreams.", "counter", [Sample(counts.forwarded)]
        )
        yield Metric(
            "dcosnet_dns_upstream_failures_total",
            "Upstreams that gave no usable reply, by reason.",
            "counter",
            _by("reason", counts.upstream_failures),
        )
        yield Metric(
            "dcosnet_dns_shed_total",
            "Queries refused because too much was under way.",
            "counter",
            [Sample(counts.shed)],
        )
        yield Metric(
            "dcosnet_dns_dropped_total",
            "Messages and connections that got no reply, by reason.",
            "counter",
            _by("reason", {**counts.dropped, "unsent": self._unsent()}),
        )


def _by(label: str, counter: Mapping[str, int]) -> list[Sample]:
    return [Sample(value, {label: key}) for key, value in sorted(counter.items())]


def _rcode_name(code: int) -> str:
    try:
        return Rcode(code).name.lower()
    except ValueError:
        return f"rcode{code}"
