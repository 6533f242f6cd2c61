"""
The grammar of VIP labels: "<name or address>:<port>".

A label is read as dcos-net reads it, except that ports over 65535, names without
any usable character, and addresses that nothing can connect to are refused: they
would make a VIP that nobody can reach.
"""

from __future__ import annotations

from functools import lru_cache

import attrs

from dcosnet.model.names import fragment, usable
from dcosnet.model.net import Address, Protocol, parse_address, parse_port, reachable
from dcosnet.model.vip import VipKey

ZONE = "l4lb.thisdcos.directory"


@attrs.frozen
class VipLabel:
    """A label that was read: a name or an address, and a port."""

    port: int
    name: str | None = None
    address: Address | None = None

    def key(self, protocol: Protocol, framework: str) -> VipKey:
        """The VIP that this label means on a port of a framework's task."""
        if self.address is not None:
            return VipKey(protocol, self.port, address=self.address)
        return VipKey(protocol, self.port, name=self.name, framework=framework)


@lru_cache(4096)  # many tasks have the same label, and follow each other
def parse(text: str) -> VipLabel:
    """Read a label. Raises ValueError with a sentence for people."""
    left, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"VIP label {text!r} has no port; write NAME:PORT or ADDRESS:PORT")
    try:
        port = parse_port(port_text.removeprefix("+"))  # dcos-net takes "+7"
    except ValueError as error:
        raise ValueError(f"VIP label {text!r}: {error}") from None
    try:
        address = parse_address(left)
    except ValueError:
        # Whatever is not strictly an address is a name.
        if not fragment(left):
            raise ValueError(f"VIP label {text!r}: the name has no letter or digit") from None
        return VipLabel(port, name=left)
    if not reachable(address):
        raise ValueError(f"VIP label {text!r}: nothing can connect to {address}; give a name or another address")
    return VipLabel(port, address=address)


def hash_text(key: VipKey) -> str:
    """
    What a named VIP's address is hashed from, and the left of its DNS name.

    A label name or framework name that holds nothing usable leaves its side
    out; `parse` refuses the former.
    """
    assert key.name is not None, key
    return ".".join(part for part in (fragment(key.name), fragment(key.framework or "")) if part)


def dns_name(key: VipKey) -> str | None:
    """The name of a VIP in the zone, or None when it has none or it is too long for DNS."""
    if key.name is None:
        return None
    name = f"{hash_text(key)}.{ZONE}"
    return name if usable(name) else None


def vip_text(key: VipKey) -> str:
    """ "web.shop.l4lb.thisdcos.directory:80" or "10.0.0.1:80", as dcos-net writes it: IPv6 without brackets."""
    if key.address is not None:
        return f"{key.address}:{key.port}"
    return f"{dns_name(key) or f'{hash_text(key)}.{ZONE}'}:{key.port}"
