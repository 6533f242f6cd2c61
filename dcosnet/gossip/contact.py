"""Where a node may be dialled: a host and a port, as seeds and records tell them."""

from __future__ import annotations

import re

import attrs

from dcosnet.model.net import Address, parse_address, parse_port

PORT = 62501
"""Where gossip listens unless told otherwise, as dcos-net did."""

# RFC 1123, and the underscore that some hosts have all the same.
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")


@attrs.frozen
class Contact:
    """An address or the name of a host, and a port."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The address; None if the host is a name."""
        try:
            return parse_address(self.host)
        except ValueError:
            return None

    @property
    def is_loopback(self) -> bool:
        """Whether it is certain that nothing leaves this host."""
        address = self.address
        return self.host == "localhost" if address is None else address.is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_contact(text: str) -> Contact:
    """
    "10.0.0.1:62501", "[fd01::1]:62501" or "host-a.example"; without a port it is PORT.

    Raises ValueError with a sentence for people.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise ValueError(f"{text!r} is not [ADDRESS]:PORT")
        return _contact(str(parse_address(host)), rest[1:], colon=bool(rest))
    if text.count(":") > 1:
        return _contact(str(parse_address(text)), "", colon=False)
    host, colon, port = text.partition(":")
    return _contact(host, port, colon=bool(colon))


def _contact(host: str, port: str, *, colon: bool) -> Contact:
    if Contact(host, 0).address is None and not (_HOST.fullmatch(host) and len(host) < 254 and _has_letter(host)):
        raise ValueError(f"{host!r} is no address and no name of a host")
    contact = Contact(host, parse_port(port) if colon else PORT)
    address = contact.address
    if address is not None and (address.is_unspecified or address.is_multicast):
        raise ValueError(f"nobody can be reached at {address}")
    return contact


def _has_letter(host: str) -> bool:
    """Else it is meant for an address, and mistyped: 10.0.0.300."""
    return any(letter.isalpha() for letter in host)
