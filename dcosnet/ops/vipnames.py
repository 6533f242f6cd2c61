"""Where a VIP answers, by what the zones say."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from dcosnet.interfaces import IZone
from dcosnet.model.net import Address, sort_key
from dcosnet.model.vip import VipKey
from dcosnet.model.viplabels import dns_name


def vip_addresses(key: VipKey, zones: Iterable[IZone]) -> list[Address]:
    """The addresses that a VIP answers on: its own, or those that the zones have for its name."""
    if key.address is not None:
        return [key.address]
    name = dns_name(key)
    if name is None:
        return []
    found: set[Address] = {
        record.data
        for zone in zones
        for record in zone.zone.value.records.get(name, ())
        if isinstance(record.data, IPv4Address | IPv6Address)
    }
    return sorted(found, key=sort_key)
