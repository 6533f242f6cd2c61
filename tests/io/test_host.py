"""What the host says of itself."""

from __future__ import annotations

import socket
import subprocess
import sys
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


def test_the_limit_of_open_files_is_raised_to_the_highest_allowed() -> None:
    """In a process of its own: a limit stays."""
    code = (
        "import resource; from dcosnet.io.host import allow_all_descriptors;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128)); allow_all_descriptors();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "128 128\n"
