"""Zones and records as values; the wire form is `dns`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import attrs

from dcosnet.model.net import Address


class RecordType(IntEnum):
    """The record types that our own zones hold (RFC 1035, 2782, 3596)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    AAAA = 28
    SRV = 33


@attrs.frozen
class Srv:
    """A service location, RFC 2782."""

    target: str
    port: int
    priority: int = 1
    weight: int = 1


@attrs.frozen
class Soa:
    """A zone's start of authority, RFC 1035 3.3.13; `minimum` bounds negative answers (RFC 2308)."""

    mname: str = "ns.spartan"
    rname: str = "support.mesosphere.com"
    serial: int = 1
    refresh: int = 60
    retry: int = 180
    expire: int = 86400
    minimum: int = 1


@attrs.frozen
class Record:
    """
    One record of a name; `ttl` in seconds.

    `data` is an address for A and AAAA, a name without trailing dot for CNAME,
    NS and PTR, a Srv or a Soa.
    """

    type: RecordType
    data: Address | str | Srv | Soa
    ttl: int = 5


def address_record(address: Address, ttl: int = 5) -> Record:
    """The A or AAAA record of an address."""
    return Record(RecordType.A if address.version == 4 else RecordType.AAAA, address, ttl)


def apex_records() -> tuple[Record, ...]:
    """What stands at each apex: SOA and NS, with dcos-net's figures."""
    return (Record(RecordType.SOA, Soa()), Record(RecordType.NS, "ns.spartan", 3600))


@attrs.frozen
class Zone:
    """
    A zone's content.

    `records` maps owner names, lower case without trailing dot, to their
    records; the apex is among them. It is a live read-only view. While
    `unsynced` gives a reason, an absent name is not denied but failed.
    """

    apex: str
    records: Mapping[str, tuple[Record, ...]]
    unsynced: str | None = None
