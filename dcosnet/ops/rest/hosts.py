"""GET /v1/hosts/<name>, as Mesos-DNS and dcos-net have it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IZone
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.zone import RecordType
from dcosnet.ops.rest.lookup import lookup


@implementer(IRestResource)
@attrs.frozen
class Hosts:
    """The IPv4 addresses of a name in our own zones; names elsewhere are not asked for."""

    path = "/v1/hosts/<name>"
    methods = frozenset({"GET"})
    local = False

    _zones: Sequence[IZone]

    def respond(self, request: RestRequest) -> RestReply:
        """[{"host","ip"}]; empty for an unknown name, so that a client sees no error."""
        name = request.arguments["name"].rstrip(".")
        return RestReply(
            [{"host": name, "ip": str(record.data)} for record in lookup(self._zones, name, RecordType.A)],
        )
