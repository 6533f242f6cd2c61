"""How much of what the views hold is this host's, and how much cannot be reached; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dcosnet.model.metric import Metric, Sample
from dcosnet.model.net import Address, Endpoint
from dcosnet.model.snapshot import Owned
from dcosnet.model.task import Task, TaskState
from dcosnet.views.viptable import VipTable


def figures(table: VipTable, tasks: Iterable[Owned[Task]], home: Address) -> Iterator[Metric]:
    """`home` is this node's address. A VIP is unreachable when all of its backends are, and is served all the same."""
    lost, ours = table.behind(table.unreachable), table.behind((home,))
    states = [owned.value.state for owned in tasks if owned.value.agent == home]
    given = (
        ("unreachable_backends", "Backends on hosts that are unreachable or dead.", _count(lost.values())),
        (
            "unreachable_vips",
            "VIPs with no other backends.",
            sum(all(one.agent in table.unreachable for one in table.vips[name].backends) for name in lost),
        ),
        ("local_vips", "VIPs with a backend on this host.", len(ours)),
        ("local_backends", "Backends on this host.", _count(ours.values())),
        ("local_tasks", "Tasks of this host.", len(states)),
        ("local_running_tasks", "Those of them that run.", states.count(TaskState.RUNNING)),
    )
    for name, text, value in given:
        yield Metric(f"dcosnet_views_{name}", text, "gauge", [Sample(value)])


def _count(found: Iterable[set[Endpoint]]) -> int:
    return sum(map(len, found))
