"""GET /v1/version, as dcos-net has it: clients probe it to see whether the daemon lives."""

from __future__ import annotations

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestReply, RestRequest


@implementer(IRestResource)
@attrs.frozen
class Version:
    """The service's name, which dcos-net's clients compare, and our version."""

    path = "/v1/version"
    methods = frozenset({"GET"})
    local = False

    _version: str

    def respond(self, _request: RestRequest) -> RestReply:
        """{"Service","Version"}."""
        return RestReply({"Service": "dcos-dns", "Version": self._version})
