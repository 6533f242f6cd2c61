"""
dcos-net's metrics, for the dashboards that exist: which of ours is which of theirs.

Pure. dcos-net told its counts in registries, with names of its own; who scraped
them put the registry before the name. Here each is made of a family of ours, as
far as the thing itself is here: what has no counterpart is left out, because a
zero would be a statement. `docs/operations/metrics.rst` has the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import attrs

from dcosnet.model.metric import Histogram, Metric, Sample


@attrs.frozen
class Alias:
    """
    A family of dcos-net's, made of one of ours.

    Of `source` the samples count whose labels have one of the values of `where`;
    those that then agree in the labels of `keep` are added up. `keep` gives our
    labels the names that theirs have. With `flat` addresses have "_" before the
    port; `scale` is what a histogram's unit is multiplied by.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    source: str
    where: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    keep: Mapping[str, str] = attrs.field(factory=dict)
    flat: bool = False
    scale: float = 1

    def of(self, metric: Metric) -> Metric:
        """The family, of ours as it stands."""
        sums: dict[tuple[str, ...], float] = {}
        for sample in metric.samples:
            if self._counts(sample.labels):
                kept = tuple(sample.labels[label] for label in self.keep)
                sums[kept] = sums.get(kept, 0) + sample.value
        samples = [Sample(value, self._labels(kept)) for kept, value in sums.items()]
        histograms = [
            (self._labels([labels[label] for label in self.keep]), _scaled(histogram, self.scale))
            for labels, histogram in metric.histograms
            if self._counts(labels)
        ]
        return Metric(self.name, metric.help, self.kind, samples, histograms)

    def _counts(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(label) in values for label, values in self.where.items())

    def _labels(self, kept: Sequence[str]) -> Mapping[str, str]:
        values = [_flat(value) for value in kept] if self.flat else kept
        return dict(zip(self.keep.values(), values, strict=True))


def _flat(value: str) -> str:
    """ "10.0.0.1_80" of "10.0.0.1:80", and "fd00::1_80" of "[fd00::1]:80"; of a name the name without its port."""
    left, _, port = value.rpartition(":")
    if left[:1] == "[" or left.replace(".", "").isdigit():
        return f"{left.strip('[]')}_{port}"
    return left


def _scaled(histogram: Histogram, scale: float) -> Histogram:
    out = Histogram([bound * scale for bound in histogram.bounds])
    out.counts = histogram.counts
    out.sum = histogram.sum * scale
    return out


def _same(*labels: str) -> Mapping[str, str]:
    return {label: label for label in labels}


_GONE = ("unreachable", "dead")
_MEMBERS = "dcosnet_gossip_members"
_FRAMES = "dcosnet_gossip_frames_total"
_BYTES = "dcosnet_gossip_bytes_total"
_REPAIR = ("digest", "frontier", "pull")
_TAGS = {"address": "vip", "backend": "backend", "vip": "name"}
_IN, _OUT = {"direction": ("in",)}, {"direction": ("out",)}

REGISTRIES: Mapping[str, Sequence[Alias]] = {
    "dns": (Alias("worker_failures_total", "counter", "dcosnet_dns_upstream_failures_total", keep=_same("reason")),),
    "l4lb": (
        Alias("vips", "gauge", "dcosnet_l4lb_vips"),
        Alias("backends", "gauge", "dcosnet_l4lb_backends"),
        Alias("vips_duration_seconds", "summary", "dcosnet_l4lb_round_seconds"),
        Alias("unreachable_backends", "gauge", "dcosnet_views_unreachable_backends"),
        Alias("unreachable_vips", "gauge", "dcosnet_views_unreachable_vips"),
        Alias("unreachable_nodes", "gauge", _MEMBERS, {"state": _GONE}),
        Alias("local_vips", "gauge", "dcosnet_views_local_vips"),
        Alias("local_tasks", "gauge", "dcosnet_views_local_tasks"),
        Alias("local_running_tasks", "gauge", "dcosnet_views_local_running_tasks"),
        Alias("local_backends", "gauge", "dcosnet_views_local_backends"),
        Alias("mm_connect_successes", "counter", "dcosnet_l4lb_backend_connections_total", keep=_TAGS, flat=True),
        Alias("mm_connect_failures", "counter", "dcosnet_l4lb_backend_failures_total", keep=_TAGS, flat=True),
        Alias(
            "mm_connect_latency",
            "histogram",
            "dcosnet_l4lb_backend_connect_seconds",
            keep=_TAGS,
            flat=True,
            scale=1e9,
        ),
    ),
    "lashup": (
        Alias("hyparview_active_view_size", "gauge", "dcosnet_gossip_links"),
        Alias("hyparview_outgoing_messages_total", "counter", _FRAMES, _OUT, keep=_same("type")),
        Alias("gm_members", "gauge", _MEMBERS, {"state": ("alive", *_GONE)}),
        Alias("gm_unreachable_nodes", "gauge", _MEMBERS, {"state": _GONE}),
        Alias("gm_updates_total", "counter", _FRAMES, {**_IN, "type": ("members",)}),
        Alias("mc_incoming_packets_total", "counter", _FRAMES, {**_IN, "type": ("change",)}),
        Alias("mc_incoming_bytes_total", "counter", _BYTES, _IN),
        Alias("mc_outgoing_bytes_total", "counter", _BYTES, _OUT),
        Alias("aae_rx_messages_total", "counter", _FRAMES, {**_IN, "type": _REPAIR}),
        Alias("aae_tx_messages_total", "counter", _FRAMES, {**_OUT, "type": _REPAIR}),
    ),
    "mesos_listener": (
        Alias("is_leader", "gauge", "dcosnet_mesos_leading"),
        Alias("tasks_total", "gauge", "dcosnet_mesos_tasks"),
        Alias("agents_total", "gauge", "dcosnet_views_agents"),
        Alias("frameworks_total", "gauge", "dcosnet_views_frameworks"),
        Alias("messages_total", "counter", "dcosnet_mesos_records_total"),
    ),
}
"""By name of the registry."""


def translate(registry: str, metrics: Iterable[Metric]) -> Iterator[Metric]:
    """The families of a registry, in its order, as far as our parts give what they are made of. Raises KeyError."""
    ours = {metric.name: metric for metric in metrics}
    return (alias.of(ours[alias.source]) for alias in REGISTRIES[registry] if alias.source in ours)
