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

from dcosnet.model.metric import Metric, Sample


@attrs.frozen
class Alias:
    """
    A family of dcos-net's, made of one of ours.

    Of `source` the samples count whose labels have one of the values of `where`;
    those that then agree in the labels of `keep` are added up.
    """

    name: str
    kind: Literal["counter", "gauge"]
    source: str
    where: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    keep: Sequence[str] = ()

    def of(self, metric: Metric) -> Metric:
        """The family, of ours as it stands."""
        sums: dict[tuple[str, ...], float] = {}
        for sample in metric.samples:
            if all(sample.labels.get(label) in values for label, values in self.where.items()):
                kept = tuple(sample.labels[label] for label in self.keep)
                sums[kept] = sums.get(kept, 0) + sample.value
        samples = [Sample(value, dict(zip(self.keep, kept, strict=True))) for kept, value in sums.items()]
        return Metric(self.name, metric.help, self.kind, samples)


_GONE = ("unreachable", "dead")
_MEMBERS = "dcosnet_gossip_members"
_FRAMES = "dcosnet_gossip_frames_total"
_BYTES = "dcosnet_gossip_bytes_total"
_REPAIR = ("digest", "frontier", "pull")
_IN, _OUT = {"direction": ("in",)}, {"direction": ("out",)}

REGISTRIES: Mapping[str, Sequence[Alias]] = {
    "dns": (Alias("worker_failures_total", "counter", "dcosnet_dns_upstream_failures_total", keep=("reason",)),),
    "l4lb": (
        Alias("vips", "gauge", "dcosnet_l4lb_vips"),
        Alias("backends", "gauge", "dcosnet_l4lb_backends"),
        Alias("unreachable_nodes", "gauge", _MEMBERS, {"state": _GONE}),
    ),
    "lashup": (
        Alias("hyparview_active_view_size", "gauge", "dcosnet_gossip_links"),
        Alias("hyparview_outgoing_messages_total", "counter", _FRAMES, _OUT, keep=("type",)),
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
