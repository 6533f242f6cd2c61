"""The counts of the HTTP interface, the readiness of all parts, and what build this is."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import attrs
from twisted.copyright import version as twisted_version
from zope.interface import implementer

from dcosnet.interfaces import IMetrics, IToolbox
from dcosnet.model.metric import Metric, Sample
from dcosnet.ops.connections import Bounded
from dcosnet.ops.http import Counts


@implementer(IMetrics)
@attrs.frozen
class OpsMetrics:
    """Read by our own /metrics."""

    name = "ops"

    _toolbox: IToolbox
    _counts: Counts
    _clients: Bounded

    def collect(self) -> Iterator[Metric]:
        """Label values are ours: classes of status, reasons, names of parts."""
        build = {
            "version": self._toolbox.node.version,
            "python": platform.python_version(),
            "twisted": twisted_version,
        }
        yield Metric("dcosnet_build_info", "Always 1; the labels say what runs.", "gauge", [Sample(1, build)])
        yield Metric(
            "dcosnet_ops_part_ready",
            "1 while the part is ready, else 0.",
            "gauge",
            [Sample(float(reason is None), {"part": part}) for part, reason in self._toolbox.readiness().items()],
        )
        yield Metric(
            "dcosnet_ops_replies_total",
            "HTTP replies by class of status.",
            "counter",
            [Sample(count, {"status": status}) for status, count in self._counts.replies.items()],
        )
        yield Metric(
            "dcosnet_ops_refused_total",
            "HTTP requests refused: a foreign Host, another site, a long body, a local resource asked over TCP.",
            "counter",
            [Sample(count, {"reason": reason}) for reason, count in self._counts.refused.items()],
        )
        yield Metric(
            "dcosnet_ops_failures_total",
            "HTTP requests that an error of ours made fail; the log has each.",
            "counter",
            [Sample(self._counts.failures)],
        )
        yield Metric(
            "dcosnet_ops_abandoned_total",
            "HTTP requests whose client left before the reply.",
            "counter",
            [Sample(self._counts.abandoned)],
        )
        yield Metric(
            "dcosnet_ops_connections",
            "Clients that are connected.",
            "gauge",
            [Sample(len(self._clients.protocols))],
        )
        yield Metric(
            "dcosnet_ops_displaced_total",
            "Clients that were cut off to make room for others, longest silent first.",
            "counter",
            [Sample(self._clients.displaced)],
        )
