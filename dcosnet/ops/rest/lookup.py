"""What the zones hold for a name; for the two resources that Mesos-DNS clients ask."""

from __future__ import annotations

from collections.abc import Iterable

from dcosnet.interfaces import IZone
from dcosnet.model.zone import Record, RecordType


def lookup(zones: Iterable[IZone], name: str, rtype: RecordType) -> list[Record]:
    """The records of a name, in any case, with or without trailing dot; of one type."""
    owner = name.lower().rstrip(".")
    return [record for zone in zones for record in zone.zone.value.records.get(owner, ()) if record.type is rtype]
