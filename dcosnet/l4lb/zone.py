"""
The zone of VIP names, out of the listeners that are really there.

Pure. A name has an address while something listens at it, so nobody is told of
a VIP that is not there yet. VIPs given by address have no name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dcosnet.l4lb.listener import Listener, Service
from dcosnet.model.cell import Changed
from dcosnet.model.net import sort_key
from dcosnet.model.viplabels import ZONE
from dcosnet.model.zone import Record, Zone, address_record, apex_records

NOT_APPLIED = "VIPs are not applied yet"


class VipZone:
    """
    The zone as it follows what is applied.

    Names are not denied before the first VIPs are applied that were known for
    sure: after the views are synced, one full round must have ended.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}
        """By name; two labels that make one name share it."""
        self._name: dict[Listener, str] = {}
        self._reason: str | None = NOT_APPLIED
        self.zone = Zone(ZONE, {ZONE: apex_records()}, NOT_APPLIED)

    def take_applied(self, applied: Mapping[Listener, Service], changed: Changed) -> frozenset[str]:
        """Take what listens now, and which of it changed, None for any of it; the names that changed."""
        touched: set[str] = set()
        for listener in self._name.keys() | applied.keys() if changed is None else changed:
            touched |= self._move(listener, applied.get(listener))
        before = self.zone.records
        fresh = {name: _records(self._listeners.get(name, ())) for name in touched}
        names = frozenset(name for name in touched if before.get(name, ()) != fresh[name])
        if names:
            records = dict(before)
            for name in names:
                if fresh[name]:
                    records[name] = fresh[name]
                else:
                    del records[name]
            self.zone = Zone(ZONE, records, self._reason)
        return names

    def _move(self, listener: Listener, service: Service | None) -> set[str]:
        """Take one listener; the names that it had and has."""
        touched = set()
        old, new = self._name.pop(listener, None), None if service is None else service.name
        if old is not None:
            self._listeners[old].discard(listener)
            if not self._listeners[old]:
                del self._listeners[old]
            touched.add(old)
        if new is not None:
            self._name[listener] = new
            self._listeners.setdefault(new, set()).add(listener)
            touched.add(new)
        return touched

    def take_reason(self, reason: str | None) -> bool:
        """Take why absent names may not be denied; whether that changed."""
        if reason == self._reason:
            return False
        self._reason = reason
        self.zone = Zone(ZONE, self.zone.records, reason)
        return True


def _records(listeners: Iterable[Listener]) -> tuple[Record, ...]:
    """A and AAAA records, IPv4 first."""
    homes = {listener.address for listener in listeners}
    return tuple(map(address_record, sorted(homes, key=sort_key)))
