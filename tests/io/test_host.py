"""What the host says of itself."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from dcosnet.config.node import NodeSettings
from dcosnet.io.host import route_address, this_node


def test_detected_address_is_one_of_this_host() -> None:
    """Something can be bound to it: others would reach this node there."""
    address = route_address()
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))


def test_settings_win_over_what_is_detected() -> None:
    """Only what is left open is asked of the host."""
    settings = NodeSettings(
        name="host-a", address=ip_address("10.0.0.1"), public_addresses=(ip_address("198.51.100.7"),)
    )
    node = this_node(settings, version="1", started_at=2.0)
    assert (node.name, node.address, node.version, node.started_at) == ("host-a", ip_address("10.0.0.1"), "1", 2.0)
    assert node.public_addresses == settings.public_addresses
    detected = this_node(NodeSettings(), version="1", started_at=2.0)
    assert (detected.name, detected.address) == (socket.gethostname(), route_address())
