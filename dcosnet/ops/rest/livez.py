"""GET /livez: the reactor turns. Whether the node is of use is what /readyz says."""

from __future__ import annotations

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestReply, RestRequest


@implementer(IRestResource)
@attrs.frozen
class Live:
    """Always the same answer; a supervisor restarts a process that does not give it."""

    path = "/livez"
    methods = frozenset({"GET"})
    local = False

    def respond(self, _request: RestRequest) -> RestReply:
        """ "ok"."""
        return RestReply("ok\n", content_type="text/plain; charset=utf-8")
