"""What the balancer counts, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zope.interface import implementer

from dcosnet.interfaces import IMetrics
from dcosnet.l4lb.desired import Desired
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.series import Series
from dcosnet.l4lb.tcp import Proxy
from dcosnet.l4lb.traffic import Traffic
from dcosnet.l4lb.udp import Relay
from dcosnet.l4lb.userspace import Userspace
from dcosnet.model.metric import Metric, Sample
from dcosnet.reconcile.service import Reconciler


@implementer(IMetrics)
class L4lbMetrics:
    """Reads the counts when asked."""

    name = "l4lb"

    def __init__(
        self,
        desired: Desired,
        applied: Callable[[], Mapping[Listener, Service]],
        proxy: Proxy,
        relay: Relay,
        plane: Userspace,
        reconciler: Reconciler,
        traffic: Traffic,
    ) -> None:
        self._desired = desired
        self._applied = applied
        self._proxy = proxy
        self._relay = relay
        self._plane = plane
        self._reconciler = reconciler
        self._traffic = traffic
        self._series = Series()

    def collect(self) -> Iterable[Metric]:
        """All families."""
        counts, flows, loop = self._proxy.counts, self._relay.flows, self._reconciler
        applied = self._applied()
        to_backend, to_client = self._proxy.transferred
        yield _gauge("vips", "VIP listeners that are applied.", len(applied))
        yield _gauge(
            "backends", "Backends behind the applied listeners.", sum(len(one.backends) for one in applied.values())
        )
        yield _gauge("problems", "VIP listeners that cannot be had.", len(self._plane.problems))
        yield _gauge("loops", "Backends left out because they are VIPs themselves.", self._desired.refused)
        yield _counter("connections_total", "TCP connections accepted.", counts.connections)
        yield _gauge("connections_active", "TCP connections that are open.", counts.active)
        yield _labelled(
            "connect_failures_total",
            "Backends that did not take a flow.",
            "reason",
            {
                "refused": counts.connect_refused,
                "timeout": counts.connect_timeout,
                "unreachable": counts.connect_unreachable,
            },
        )
        yield _counter("retries_total", "Flows that went on to another backend.", counts.retries)
        yield _counter("refused_total", "Flows without any backend.", counts.refused)
        yield _labelled(
            "bytes_total",
            "Bytes passed on, TCP and UDP.",
            "direction",
            {"to_backend": to_backend, "to_client": to_client},
        )
        yield _gauge("udp_flows", "UDP flows that are open.", len(flows))
        yield _counter("udp_evicted_total", "UDP flows that had to make room.", flows.evicted)
        yield _counter("udp_dropped_total", "Datagrams that could not be passed on.", counts.udp_dropped)
        yield _labelled(
            "accept_errors_total",
            "Times that accepting paused.",
            "reason",
            {"descriptors": counts.accept_errors, "limit": counts.accept_paused},
        )
        yield _counter("rounds_total", "Rounds of the reconcile loop.", loop.rounds)
        yield _labelled(
            "round_failures_total",
            "Rounds that did not apply all.",
            "reason",
            {"refused": loop.failures, "error": loop.errors},
        )
        yield Metric("dcosnet_l4lb_round_seconds", "Duration of a round.", "histogram", histograms=[({}, loop.seconds)])
        yield _counter("callback_errors_total", "Broken callbacks of the driver.", self._proxy.epoll.errors)
        yield from self._series.collect(self._traffic.traffic(self._traffic.used()))


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(f"dcosnet_l4lb_{name}", text, "gauge", (Sample(value),))


def _counter(name: str, text: str, value: float) -> Metric:
    return Metric(f"dcosnet_l4lb_{name}", text, "counter", (Sample(value),))


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    samples = tuple(Sample(value, {label: key}) for key, value in values.items())
    return Metric(f"dcosnet_l4lb_{name}", text, "counter", samples)
