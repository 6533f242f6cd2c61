"""What gossip counts, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from zope.interface import implementer

from dcosnet.gossip.cluster import Cluster
from dcosnet.gossip.counts import Counts
from dcosnet.gossip.membership import Membership
from dcosnet.gossip.peers import Counts as Connections
from dcosnet.gossip.tls import Tls
from dcosnet.interfaces import IMetrics
from dcosnet.io.drive import Drive
from dcosnet.model.member import MemberState
from dcosnet.model.metric import Metric, Sample


@implementer(IMetrics)
class GossipMetrics:
    """Reads the counts when asked; those of a node without a cluster are zero."""

    name = "gossip"

    def __init__(self, membership: Membership) -> None:
        self.connections = Connections()
        self.core: Cluster | None = None
        self.drive: Drive[Any, Any, Any] | None = None
        self.tls: Tls | None = None
        self._membership = membership
        self._none = Counts()

    def collect(self) -> Iterable[Metric]:
        """All families."""
        core, connections, tls = self.core, self.connections, self.tls
        counts = core.counts if core is not None else self._none
        states = Counter(member.state for member in self._membership.members.value.values())
        yield _labelled(
            "members", "Members, this node among them.", "gauge", "state", {s: states[s] for s in MemberState}
        )
        yield _one("links", "Links that stand.", "gauge", len(core.links) if core is not None else 0)
        yield _one(
            "health", "How much timeouts are stretched, 0 to 8.", "gauge", core.health if core is not None else 0
        )
        yield _one(
            "superseded",
            "1 if another process has this node's name, and this one takes no part.",
            "gauge",
            int(core is not None and core.superseded is not None),
        )
        yield _labelled(
            "bytes_total",
            "Octets of frames.",
            "counter",
            "direction",
            {"in": counts.octets_in, "out": counts.octets_out},
        )
        yield _family(
            "frames_total",
            "Frames.",
            "counter",
            [
                Sample(number, {"direction": direction, "type": kind})
                for direction, frames in (("in", counts.frames_in), ("out", counts.frames_out))
                for kind, number in frames.items()
            ],
        )
        yield _one("dials_total", "Connections begun.", "counter", counts.dials)
        yield _labelled("dial_failures_total", "Dials that led to no link.", "counter", "reason", counts.dials_failed)
        yield _labelled(
            "handshakes_total",
            "Connections that both ends were content with.",
            "counter",
            "direction",
            {"in": connections.accepted, "out": connections.dialled},
        )
        yield _labelled(
            "connections_refused_total",
            "Connections refused before the first frame.",
            "counter",
            "reason",
            connections.refused,
        )
        yield _one("links_opened_total", "Links that stood.", "counter", counts.links_opened)
        yield _labelled("links_lost_total", "Links that were lost.", "counter", "reason", counts.links_lost)
        yield _family(
            "links_refused_total",
            "Links refused with a reason, by this end or by the other.",
            "counter",
            [
                Sample(number, {"reason": code.name.lower(), "by": "peer" if theirs else "here"})
                for (code, theirs), number in counts.refused.items()
            ],
        )
        yield _one("records_refused_total", "Records of members that break a rule.", "counter", counts.records_refused)
        yield _one("changes_refused_total", "Changes that the store refused.", "counter", counts.changes_refused)
        yield _one("comparisons_total", "Comparisons of all that two nodes know.", "counter", counts.comparisons)
        yield _labelled("verdicts_total", "Changes of a member's state.", "counter", "state", counts.verdicts)
        yield _one("pauses_total", "Times that this process did not run for a while.", "counter", counts.pauses)
        yield _one(
            "callback_errors_total",
            "Errors of ours that gossip went on after.",
            "counter",
            self.drive.failures if self.drive else 0,
        )
        left = [] if tls is None else [Sample(tls.seconds_left)]
        yield _family(
            "certificate_left_seconds",
            "Until the certificate or its authority expires; absent without one.",
            "gauge",
            left,
        )
        yield _one(
            "certificate_reloads_total",
            "Times that renewed certificates were taken.",
            "counter",
            tls.reloads if tls is not None else 0,
        )


def _family(name: str, text: str, kind: Any, samples: list[Sample]) -> Metric:
    return Metric(f"dcosnet_gossip_{name}", text, kind, samples)


def _one(name: str, text: str, kind: str, value: float) -> Metric:
    return _family(name, text, kind, [Sample(value)])


def _labelled(name: str, text: str, kind: str, label: str, values: Mapping[Any, float]) -> Metric:
    return _family(name, text, kind, [Sample(value, {label: str(key)}) for key, value in values.items()])
