"""How VIPs are told to people: dcos-net's texts, and the addresses that the zone gives."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from dcosnet.interfaces import IZone
from dcosnet.model.net import Address, sort_key
from dcosnet.model.vip import VipKey
from dcosnet.model.viplabels import ZONE, dns_name, hash_text


def vip_text(key: VipKey) -> str:
    """ "web.shop.l4lb.thisdcos.directory:80" or "10.0.0.1:80", as dcos-net writes it: IPv6 without brackets."""
    if key.address is not None:
        return f"{key.address}:{key.port}"
    return f"{dns_name(key) or f'{hash_text(key)}.{ZONE}'}:{key.port}"


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
