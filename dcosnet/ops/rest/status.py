"""GET /v1/status: each part of this process, whether it is ready, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IToolbox
from dcosnet.model.rest import RestReply, RestRequest


@implementer(IRestResource)
@attrs.frozen
class Status:
    """The node and its parts."""

    path = "/v1/status"
    methods = frozenset({"GET"})
    local = False

    _toolbox: IToolbox
    _uptime: Callable[[], float]

    def respond(self, _request: RestRequest) -> RestReply:
        """{"node","version","uptime_seconds","ready","parts":{NAME:{"ready","reason","facts"}}}."""
        readiness, facts = self._toolbox.readiness(), self._toolbox.describe()
        return RestReply(
            {
                "node": self._toolbox.node.name,
                "version": self._toolbox.node.version,
                "uptime_seconds": round(self._uptime(), 3),
                "ready": all(reason is None for reason in readiness.values()),
                "parts": {
                    name: {"ready": reason is None, "reason": reason, "facts": facts.get(name, {})}
                    for name, reason in readiness.items()
                },
            }
        )
