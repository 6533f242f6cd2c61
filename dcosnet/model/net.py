"""Addresses, ports and protocols, parsed strictly. Nothing here asks the host."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

Address = IPv4Address | IPv6Address

_BROADCAST = IPv4Address("255.255.255.255")


class Protocol(StrEnum):
    """A transport that a port speaks."""

    TCP = "tcp"
    UDP = "udp"


def parse_address(text: str) -> Address:
    """
    The address that `text` is, strictly: no short forms, no zone.

    Raises ValueError with a sentence for people.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; give the plain address")
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address") from None


def reachable(address: Address) -> bool:
    """Whether something can connect to an address at all: not where it is unspecified, multicast or broadcast."""
    return not (address.is_unspecified or address.is_multicast or address == _BROADCAST)


def parse_port(text: str) -> int:
    """A port from 1 to 65535, written in decimal. Raises ValueError."""
    # int() refuses thousands of digits with a sentence of its own.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{text[:20]!r} is not a port number")
    return check_port(int(text))


def check_port(port: int) -> int:
    """The same port when it is usable. Raises ValueError for 0 and above 65535."""
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return port


@attrs.frozen(order=False)
class Endpoint:
    """An address with a port, as something that connects or listens needs it."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.address.version == 4 else f"[{self.address}]:{self.port}"


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """
    "1.2.3.4:53", "[::1]:53", or with a default port also "1.2.3.4" and "::1".

    Raises ValueError with a sentence for people.
    """
    host, colon, port = text, "", ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError(f"{text!r} is not ADDRESS:PORT")
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
    if port:
        return Endpoint(parse_address(host), parse_port(port))
    if default_port is None or colon:
        raise ValueError(f"{text!r} has no port; write ADDRESS:PORT")
    return Endpoint(parse_address(host), default_port)


def sort_key(address: Address) -> tuple[int, int]:
    """Orders addresses of both families: IPv4 first, then by number."""
    return address.version, int(address)
