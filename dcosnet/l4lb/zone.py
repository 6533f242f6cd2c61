"""
The zone of VIP names, out of the listeners that are really there.

Pure. A name has an address while something listens at it, so nobody is told of
a VIP that is not there yet. VIPs given by address have no name.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcosnet.l4lb.listener import Listener, Service
from dcosnet.model.net import Address, sort_key
from dcosnet.model.viplabels import ZONE
from dcosnet.model.zone import Record, Zone, address_record, apex_records

NOT_APPLIED = "VIPs are not applied yet"


def records(applied: Mapping[Listener, Service]) -> dict[str, tuple[Record, ...]]:
    """Names with their A and AAAA records, IPv4 first; two labels that make one name share it."""
    homes: dict[str, set[Address]] = {}
    for listener, service in applied.items():
        if service.name is not None:
            homes.setdefault(service.name, set()).add(listener.address)
    return {name: tuple(map(address_record, sorted(found, key=sort_key))) for name, found in homes.items()}


class VipZone:
    """
    The zone as it follows what is applied.

    Names are not denied before the first VIPs are applied that were known for
    sure: after the views are synced, one full round must have ended.
    """

    def __init__(self) -> None:
        self._names: dict[str, tuple[Record, ...]] = {}
        self._reason: str | None = NOT_APPLIED
        self.zone = self._make()

    def take_applied(self, applied: Mapping[Listener, Service]) -> frozenset[str]:
        """Take what listens now; the names that changed."""
        names = records(applied)
        changed = frozenset(
            name for name in names.keys() | self._names.keys() if names.get(name) != self._names.get(name)
        )
        if changed:
            self._names = names
            self.zone = self._make()
        return changed

    def take_reason(self, reason: str | None) -> bool:
        """Take why absent names may not be denied; whether that changed."""
        if reason == self._reason:
            return False
        self._reason = reason
        self.zone = self._make()
        return True

    def _make(self) -> Zone:
        return Zone(ZONE, {ZONE: apex_records(), **self._names}, self._reason)
