"""GET /v1/records, as dcos-net has it; `?name=GLOB` keeps matching owner names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import translate
from re import compile as compile_pattern

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IZone
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.zone import RecordType, Srv

_TOLD = (RecordType.A, RecordType.AAAA, RecordType.SRV)


@implementer(IRestResource)
@attrs.frozen
class Records:
    """The addresses and services of every zone of ours, sorted by name; other types are left out, as in dcos-net."""

    path = "/v1/records"
    methods = frozenset({"GET"})
    local = False

    _zones: Sequence[IZone]

    def respond(self, request: RestRequest) -> RestReply:
        """[{"name","host","rtype"}], `host` an address or TARGET:PORT."""
        wanted = compile_pattern(translate(request.query.get("name", "*").lower().rstrip(".") or "*"))
        rows = sorted(self._rows())
        return RestReply(
            [{"name": name, "host": host, "rtype": rtype} for name, rtype, host in rows if wanted.match(name)]
        )

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for zone in self._zones:
            for name, records in zone.zone.value.records.items():
                for record in records:
                    if record.type in _TOLD:
                        data = record.data
                        host = f"{data.target}:{data.port}" if isinstance(data, Srv) else str(data)
                        yield name, record.type.name, host
