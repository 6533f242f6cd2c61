"""GET /v1/sources: where this node's tasks come from, and what could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, ITaskSource
from dcosnet.model.facts import Problem
from dcosnet.model.rest import RestReply, RestRequest

_SHOWN = 100  # problems of one source
_LENGTH = 300  # characters of a reference or a reason


@implementer(IRestResource)
@attrs.frozen
class Sources:
    """The task sources of this node, sorted by name."""

    path = "/v1/sources"
    methods = frozenset({"GET"})
    local = False

    _sources: Sequence[ITaskSource]

    def respond(self, _request: RestRequest) -> RestReply:
        """[{"name","synced","detail","tasks","changed_at","problems":[{"reference","reason"}]}]."""
        return RestReply([_told(source) for source in sorted(self._sources, key=lambda source: source.name)])


def _told(source: ITaskSource) -> dict[str, Any]:
    status = source.status()
    return {
        "name": source.name,
        "synced": status.synced,
        "detail": status.detail,
        "tasks": status.tasks,
        "changed_at": status.changed_at,
        "problems": [
            {"reference": problem.reference[:_LENGTH], "reason": problem.reason[:_LENGTH]}
            for problem in _bounded(status.problems, status.more)
        ],
    }


def _bounded(problems: Sequence[Problem], more: int) -> Sequence[Problem]:
    left = max(0, len(problems) - _SHOWN) + more
    return problems if not left else [*problems[:_SHOWN], Problem("", f"{left} more problems are not shown")]
