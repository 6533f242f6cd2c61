"""GET /v1/tasks: every task that this node knows of, with who told it and what of it could not be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, ITaskSource, IViews
from dcosnet.model import viplabels
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.snapshot import Owned
from dcosnet.model.task import Task

_SHOWN = 16  # problems of one task
_LENGTH = 300  # characters of a label or a reason; a label may be as long as a value of the store


@implementer(IRestResource)
@attrs.frozen
class Tasks:
    """The tasks of all nodes, sorted by their keys."""

    path = "/v1/tasks"
    methods = frozenset({"GET"})
    local = False

    _views: IViews
    _sources: Sequence[ITaskSource] = ()

    def respond(self, _request: RestRequest) -> RestReply:
        """
        One object a task; `problems` are what was refused of it, with the reason.

        VIP labels are read here, on every node. Ports and all else that a
        source could not use are known on the node of that source only; a label
        that it tells of as well is told once.
        """
        tasks = self._views.snapshot.value.tasks
        told: dict[str, list[dict[str, Any]]] = {}
        for source in self._sources:
            for problem in source.status().problems:
                if problem.reference in tasks:
                    told.setdefault(problem.reference, []).append({"label": None, "reason": problem.reason})
        return RestReply([_told(tasks[key], _together(tasks[key].value, told.get(key, ()))) for key in sorted(tasks)])


def label_problems(task: Task) -> list[dict[str, Any]]:
    """The VIP labels of a task that cannot be used: [{"label","reason"}]."""
    problems: list[dict[str, Any]] = []
    for label in dict.fromkeys(label for port in task.ports for label in port.vips):
        try:
            viplabels.parse(label)
        except ValueError as error:
            problems.append({"label": label, "reason": str(error)})
    return problems


def _together(task: Task, told: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    problems = label_problems(task)
    known = {problem["reason"] for problem in problems}
    return [*problems, *(problem for problem in told if problem["reason"] not in known)]


def _bounded(problems: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for problem in problems[:_SHOWN]:
        yield {key: value and value[:_LENGTH] for key, value in problem.items()}
    if len(problems) > _SHOWN:
        yield {"label": None, "reason": f"{len(problems) - _SHOWN} more problems are not shown"}


def _told(owned: Owned[Task], problems: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
        "problems": list(_bounded(problems)),
    }
