"""
What this host says of itself: its name, and the address that others reach it at.

Asks the kernel only; nothing is sent.
"""

from __future__ import annotations

import resource
import socket
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from dcosnet.config.node import NodeSettings
from dcosnet.model.net import Address
from dcosnet.model.node import Node

# Addresses of documentation (RFC 5737, RFC 3849): every default route covers
# them and nobody owns them, so none of them can be this host's own.
_OUT = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def host_name() -> str:
    """The host's name as the kernel has it."""
    return socket.gethostname()


def route_address() -> Address:
    """The address that a packet to the outside would leave from; 127.0.0.1 when there is no route."""
    for family, destination in _OUT:
        try:
            # Connecting a datagram socket picks the route and sends nothing.
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((destination, 9))
                return ip_address(probe.getsockname()[0])
        except OSError:
            continue  # no route in this family, or no such family here
    return IPv4Address("127.0.0.1")


def is_local(address: Address) -> bool:
    """Whether what is sent to an address comes to this very host."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # The kernel reaches an address of its own from that address.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False  # no route, so it is not here either


NET_ADMIN = 12
"""CAP_NET_ADMIN of capabilities(7): may change routes."""


def capable(capability: int) -> bool:
    """Whether this process has a capability in effect now, by its number."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False


def this_node(settings: NodeSettings, *, version: str, started_at: float) -> Node:
    """This node, with what the settings leave open asked of the host."""
    return Node(
        name=settings.name or host_name(),
        address=settings.address or route_address(),
        public_addresses=settings.public_addresses,
        version=version,
        started_at=started_at,
    )


def allow_all_descriptors() -> None:
    """
    Raise this process's limit of open files to the highest that it may have.

    The usual soft limit of 1024 is for programs that use select(2); a balancer
    needs two descriptors for each connection.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
