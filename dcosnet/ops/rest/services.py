"""GET /v1/services/<name>, as Mesos-DNS and dcos-net have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IZone
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.zone import RecordType, Srv
from dcosnet.ops.rest.lookup import lookup


@implementer(IRestResource)
@attrs.frozen
class Services:
    """The SRV records of a name in our own zones, each with the addresses of its target."""

    path = "/v1/services/<name>"
    methods = frozenset({"GET"})
    local = False

    _zones: Sequence[IZone]

    def respond(self, request: RestRequest) -> RestReply:
        """[{"service","host","ip","port"}], `port` a number; no `ip` where the target has no A record."""
        return RestReply(list(self._rows(request.arguments["name"].rstrip("."))))

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        for record in lookup(self._zones, name, RecordType.SRV):
            assert isinstance(record.data, Srv)
            row = {"service": name, "host": record.data.target, "port": record.data.port}
            addresses = lookup(self._zones, record.data.target, RecordType.A)
            for address in addresses:
                yield {**row, "ip": str(address.data)}
            if not addresses:
                yield row
