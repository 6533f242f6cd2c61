"""
The counts of VIPs and backends as metrics, as many as a scrape can bear.

Pure. Their labels are names and addresses, unlike all others', so their number
is bounded: only what had a flow or a failure has series, and what has them keeps
them as long as it is there. What is beyond the bound is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from dcosnet.l4lb.tally import CONNECT_BOUNDS, Reason
from dcosnet.model.metric import Histogram, Metric, Sample
from dcosnet.model.traffic import Flows, VipTraffic
from dcosnet.model.viplabels import vip_text

# A scrape of so many costs the process some 50 ms; of VIPs, and again of backends.
SERIES = 10_000
# Of one VIP: each reason of failures, two directions, four more. Backends have a
# histogram, too.
_SIMPLE = 6 + len(Reason)
_HISTOGRAM = len(CONNECT_BOUNDS) + 3

_Labels = tuple[tuple[str, str], ...]


@attrs.define
class _Shown:
    """Who has series, in the order in which they came."""

    limit: int
    keys: dict[_Labels, None] = attrs.field(factory=dict)

    def choose(self, present: Mapping[_Labels, Flows]) -> Mapping[_Labels, Flows]:
        """Those that had series keep them, then others as far as there is room."""
        for gone in self.keys.keys() - present.keys():
            del self.keys[gone]
        for key in present:
            if len(self.keys) >= self.limit:
                break
            self.keys[key] = None
        return {key: present[key] for key in self.keys}


class Series:
    """Makes the families, one scrape after the other."""

    def __init__(self, series: int = SERIES) -> None:
        self._vips = _Shown(series // _SIMPLE)
        self._backends = _Shown(series // (_SIMPLE + _HISTOGRAM))

    def collect(self, traffic: Mapping[str, VipTraffic]) -> Iterator[Metric]:
        """All families; those of nobody are empty."""
        vips: dict[_Labels, Flows] = {}
        backends: dict[_Labels, Flows] = {}
        for one in traffic.values():
            if not one.total.used:
                continue
            text, protocol = vip_text(one.key), str(one.key.protocol)
            labels = (("vip", text), ("protocol", protocol))
            # "/web" and "web" are two VIPs with one name.
            vips[labels] = vips[labels] + one.total if labels in vips else one.total
            for listener in one.listeners:
                home = ("address", str(listener.endpoint))
                for backend in listener.backends:
                    if backend.flows.used:
                        backends[(*labels, home, ("backend", str(backend.endpoint)))] = backend.flows
        of_vips, of_backends = self._vips.choose(vips), self._backends.choose(backends)
        yield from _simple("dcosnet_l4lb_vip_", "VIP", of_vips)
        yield from _simple("dcosnet_l4lb_backend_", "backend", of_backends)
        yield Metric(
            "dcosnet_l4lb_backend_connect_seconds",
            "Time until the backend took a TCP connection.",
            "histogram",
            histograms=[(dict(labels), histogram) for labels, histogram in _histograms(of_backends)],
        )
        yield Metric(
            "dcosnet_l4lb_untold",
            "VIPs and backends that had flows and are left out of the families above, as there are too many.",
            "gauge",
            [
                Sample(len(vips) - len(of_vips), {"of": "vips"}),
                Sample(len(backends) - len(of_backends), {"of": "backends"}),
            ],
        )


def _simple(prefix: str, what: str, shown: Mapping[_Labels, Flows]) -> Iterator[Metric]:
    def plain(value: Callable[[Flows], int]) -> list[Sample]:
        return [Sample(value(flows), dict(labels)) for labels, flows in shown.items()]

    def split(label: str, values: Callable[[Flows], Mapping[str, int]]) -> list[Sample]:
        return [
            Sample(count, {**dict(labels), label: value})
            for labels, flows in shown.items()
            for value, count in values(flows).items()
        ]

    yield Metric(
        f"{prefix}connections_total",
        f"Connections and UDP flows that the {what} took.",
        "counter",
        plain(lambda flows: flows.taken),
    )
    yield Metric(f"{prefix}active", f"Flows of the {what} in flight.", "gauge", plain(lambda flows: flows.active))
    yield Metric(
        f"{prefix}failures_total",
        f"Times that {'it' if what == 'backend' else 'a backend of the VIP'} did not take a flow.",
        "counter",
        split("reason", lambda flows: flows.failures),
    )
    yield Metric(
        f"{prefix}retries_total",
        f"Flows of the {what} that another backend had failed before.",
        "counter",
        plain(lambda flows: flows.retries),
    )
    yield Metric(
        f"{prefix}bytes_total",
        f"Bytes passed on for the {what}, those of open connections among them.",
        "counter",
        split("direction", lambda flows: {"to_backend": flows.to_backend, "to_client": flows.to_client}),
    )
    yield Metric(
        f"{prefix}idle_closed_total",
        f"Flows of the {what} that ended for having been idle.",
        "counter",
        plain(lambda flows: flows.idle_closed),
    )


def _histograms(shown: Mapping[_Labels, Flows]) -> Iterator[tuple[_Labels, Histogram]]:
    """UDP has no connects to measure."""
    return ((labels, flows.histogram) for labels, flows in shown.items() if ("protocol", "udp") not in labels)
