"""
Ranges of virtual addresses, and which of them a name gets.

Pure: the same names with the same creation stamps get the same addresses on
every node, whatever the order in which they were heard of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from ipaddress import IPv4Address, IPv6Address

import attrs

from dcosnet.model.hashing import phash2
from dcosnet.model.net import Address, parse_address


@attrs.frozen
class AddressRange:
    """All addresses from `first` to `last`, both included, of one family."""

    first: Address
    last: Address

    def __contains__(self, address: Address) -> bool:
        return address.version == self.first.version and int(self.first) <= int(address) <= int(self.last)

    @property
    def size(self) -> int:
        """How many addresses there are; more than len() may tell in IPv6."""
        return int(self.last) - int(self.first) + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def start(self, text: str) -> Address:
        """
        The first choice for a name, as dcos-net computes it.

        phash2 for IPv4, SHA-1 for IPv6, modulo the distance of the ends; so the
        last address is reached by stepping only (spec/l4lb_overlay.md 2.1).
        """
        distance = max(1, int(self.last) - int(self.first))
        data = text.encode()
        if self.first.version == 4:
            return IPv4Address(int(self.first) + phash2(data, distance))
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        return IPv6Address(int(self.first) + int.from_bytes(digest, "big") % distance)

    def free(self, text: str, taken: Container[Address]) -> Address | None:
        """
        The first choice for a name, or the next address that is not taken.

        From the last address it goes on at the first. None after as many tries
        as dcos-net makes: the distance of the ends.
        """
        address = self.start(text)
        for _ in range(max(1, int(self.last) - int(self.first))):
            if address not in taken:
                return address
            address = self.first if address == self.last else address + 1
        return None


def parse_range(text: str) -> AddressRange:
    """ "FIRST-LAST". Raises ValueError with a sentence for people."""
    first_text, dash, last_text = text.partition("-")
    if not dash:
        raise ValueError(f"{text!r} is not FIRST-LAST")
    first, last = parse_address(first_text.strip()), parse_address(last_text.strip())
    if first.version != last.version:
        raise ValueError(f"{text!r} mixes IPv4 and IPv6")
    if int(last) < int(first):
        raise ValueError(f"{text!r} ends before it begins")
    return AddressRange(first, last)
