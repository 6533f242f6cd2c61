"""
The counts of VIPs and backends as metrics, as many as a scrape can bear.

Pure. Their labels are names and addresses, unlike all others', so their number
is bounded: only what had a flow or a failure has series, and what has them keeps
them as long as it is there. What is beyond the bound is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import attrs

from dcosnet.l4lb.tally import CONNECT_BOUNDS, Reason
from dcosnet.model.metric import Histogram, Metric, Sample
from dcosnet.model.traffic import Flows, VipTraffic
from dcosnet.model.vip import VipKey
from dcosnet.model.viplabels import vip_text

# Twice so many cost the process some 100 ms a scrape; of VIPs, and again of backends.
SERIES = 10_000
# Of one VIP: each reason of failures, two directions, four more. Backends have a
# histogram, too.
_SIMPLE = 6 + len(Reason)
_HISTOGRAM = len(CONNECT_BOUNDS) + 3

K = TypeVar("K", bound=Hashable)
_Labels = tuple[tuple[str, str], ...]


class Source(Protocol):
    """Where counts are; see `Traffic`."""

    def used(self) -> Mapping[str, int]:
        """VIPs with anything counted, each with the number of such backends."""

    def totals(self, vips: Collection[str]) -> Mapping[str, Flows]:
        """Of these VIPs all that they carried."""

    def traffic(self, vips: Collection[str]) -> Mapping[str, VipTraffic]:
        """Of these VIPs all there is."""

    def key(self, vip: str) -> VipKey:
        """Which VIP that is."""


@attrs.define
class _Shown(Generic[K]):
    """Who has series, in the order in which they came."""

    limit: int
    keys: dict[K, None] = attrs.field(factory=dict)

    def choose(self, present: Collection[K]) -> Collection[K]:
        """Those that had series keep them, then others as far as there is room."""
        for gone in [key for key in self.keys if key not in present]:
            del self.keys[gone]
        for key in present:
            if len(self.keys) >= self.limit:
                break
            self.keys[key] = None
        return tuple(self.keys)


class Series:
    """Makes the families, one scrape after the other."""

    def __init__(self, series: int = SERIES) -> None:
        self._vips: _Shown[str] = _Shown(series // _SIMPLE)
        self._backends: _Shown[_Labels] = _Shown(series // (_SIMPLE + _HISTOGRAM))
        self._shown: Collection[str] = ()
        """VIPs of which backends have series."""

    def collect(self, source: Source) -> Iterator[Metric]:
        """All families; those of nobody are empty."""
        used = source.used()
        chosen = self._vips.choose(used)
        vips: dict[_Labels, Flows] = {}
        for key, total in source.totals(chosen).items():
            labels = _labels(source.key(key))
            # "/web" and "web" are two VIPs with one name.
            vips[labels] = vips[labels] + total if labels in vips else total
        backends = self._of_backends(source, used)
        yield from _simple("dcosnet_l4lb_vip_", "VIP", vips)
        yield from _simple("dcosnet_l4lb_backend_", "backend", backends)
        yield Metric(
            "dcosnet_l4lb_backend_connect_seconds",
            "Time until the backend took a TCP connection.",
            "histogram",
            histograms=[(dict(labels), histogram) for labels, histogram in _histograms(backends)],
        )
        left = {"vips": len(used) - len(chosen), "backends": max(0, sum(used.values()) - len(backends))}
        yield Metric(
            "dcosnet_l4lb_untold",
            "VIPs and backends that had flows and are left out of the families above, as there are too many.",
            "gauge",
            [Sample(count, {"of": what}) for what, count in left.items()],
        )

    def _of_backends(self, source: Source, used: Mapping[str, int]) -> Mapping[_Labels, Flows]:
        """Only as many VIPs are asked for their backends as there is room for."""
        asked, room = [], self._backends.limit
        for key in sorted(used, key=lambda key: key not in self._shown):
            if room <= 0:
                break
            asked.append(key)
            room -= used[key]
        present: dict[_Labels, Flows] = {}
        of: dict[_Labels, str] = {}
        for key, one in source.traffic(asked).items():
            labels = _labels(one.key)
            for listener in one.listeners:
                home = ("address", str(listener.endpoint))
                for backend in listener.backends:
                    if backend.flows.used:
                        name = (*labels, home, ("backend", str(backend.endpoint)))
                        present[name] = backend.flows
                        of[name] = key
        chosen = self._backends.choose(present)
        self._shown = {of[name] for name in chosen}
        return {name: present[name] for name in chosen}


def _labels(key: VipKey) -> _Labels:
    return ("vip", vip_text(key)), ("protocol", str(key.protocol))


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
