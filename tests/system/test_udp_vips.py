"""
A UDP backend whose host cannot be reached: ICMP of a packet filter, in a network namespace of the test's own.

It needs root or user namespaces, and nft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from namespace import Namespace

pytestmark = pytest.mark.system

FILTER = """
table ip test {
  chain output {
    type filter hook output priority 0;
    ip daddr 127.0.0.9 meta l4proto udp reject with icmp type host-unreachable
  }
}
"""
PROGRAM = """
import socket, sys
sys.path.insert(0, {tests!r})
from ipaddress import ip_address
from dcosnet.io.mmsg import PlainBatch, SystemBatch
from dcosnet.model.net import Protocol
from dcosnet.model.vip import Backend
from l4lb.rig import VIP, backend, free_port, listener, open_plane, service

gone = ip_address("127.0.0.9")
for kind in SystemBatch, PlainBatch:
    with open_plane(make_batch=kind) as plane, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.setblocking(False)
        vip = listener(free_port(socket.SOCK_DGRAM), Protocol.UDP)
        plane.apply({{vip: service(vip, Backend(gone, 4000, gone, 1), backend(there.getsockname()[1]))}})
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for client in clients:
            client.connect((str(VIP), vip.port))
            for number in range(5):
                client.send(b"%d" % number)
            plane.epoll.doRead()
        got = [there.recv(9).decode() for _ in range(10)]
        plane.apply({{vip: service(vip, Backend(gone, 4000, gone, 1))}})
        for client in clients:
            client.send(b"x")
        for _ in range(5):
            plane.epoll.doRead()
        left = len(plane.epoll._epoll.poll(0))
        print(*got, left, len(plane.relay.flows))
"""


@pytest.fixture
def namespace(require_program: Callable[[str], str], tmp_path: Path) -> Iterator[Namespace]:
    made = Namespace(require_program("unshare"), require_program("nsenter"))
    rules = tmp_path / "rules.nft"
    rules.write_text(FILTER)
    try:
        if not made.there or made.run(f"{require_program('ip')} link set lo up").returncode:
            pytest.skip("this user may not make a network namespace")
        if made.run(f"{require_program('nft')} -f {rules}").returncode:
            pytest.skip("this kernel has no packet filter for namespaces")
        yield made
    finally:
        made.close()


def test_a_flow_leaves_a_host_that_is_unreachable_and_loses_nothing(namespace: Namespace) -> None:
    """
    For a system that hides it from connected sockets unless asked, this is what asking is for.

    Where no other host is the flows stay, and epoll has nothing left to tell.
    """
    told = namespace.python(PROGRAM.format(tests=str(Path(__file__).parents[1])))
    line = "0 1 2 3 4 0 1 2 3 4 0 2"
    assert told.splitlines() == [line, line]
