"""GET /v1/tasks: every task that this node knows of, with who told it."""

from __future__ import annotations

from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IViews
from dcosnet.model import viplabels
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.snapshot import Owned
from dcosnet.model.task import Task


@implementer(IRestResource)
@attrs.frozen
class Tasks:
    """The tasks of all nodes, sorted by their keys."""

    path = "/v1/tasks"
    methods = frozenset({"GET"})
    local = False

    _views: IViews

    def respond(self, _request: RestRequest) -> RestReply:
        """One object a task; `problems` are the VIP labels that were refused, with the reason."""
        tasks = self._views.snapshot.value.tasks
        return RestReply([_told(tasks[key]) for key in sorted(tasks)])


def label_problems(task: Task) -> list[dict[str, str]]:
    """The VIP labels of a task that cannot be used: [{"label","reason"}]."""
    problems = []
    for label in dict.fromkeys(label for port in task.ports for label in port.vips):
        try:
            viplabels.parse(label)
        except ValueError as error:
            problems.append({"label": label, "reason": str(error)})
    return problems


def _told(owned: Owned[Task]) -> dict[str, Any]:
    task = owned.value
    return {
        "id": {"framework": task.id.framework, "task": task.id.task},
        "name": task.name,
        "framework": task.framework,
        "agent": str(task.agent),
        "addresses": [str(address) for address in task.addresses],
        "state": str(task.state),
        "health": str(task.health),
        "weight": task.weight,
        "runtime": str(task.runtime),
        "ports": [
            {
                "protocol": str(port.protocol),
                "port": port.port,
                "host_port": port.host_port,
                "name": port.name,
                "vips": list(port.vips),
            }
            for port in task.ports
        ],
        "labels": dict(task.labels),
        "owner": owned.owner,
        "provenance": {"source": task.provenance.source, "reference": task.provenance.reference},
        "problems": label_problems(task),
    }
