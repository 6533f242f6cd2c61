"""Two hosts, clients with open connections, and somebody who takes one of the hosts out of service."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon import PATIENCE, Daemon, vip_net
from echo import Echo

CONFIG = """
[node]
name = "{name}"
address = "{address}"
state_dir = "state"
[gossip]
cluster = "prod"
listen = "tcp:0:interface={address}"
seeds = [{seeds}]
[files]
path = "services.d"
[l4lb]
plane = "userspace"
named_vips = ["{net}.{first}-{net}.{last}"]
[ops]
listen = ["unix:api.sock:mode=600"]
"""

SERVICE = """
[[service]]
name = "web"
group = "shop"
instance = "{name}"
address = "{address}"
ports = [{{ port = {port}, vip = "/web:8000" }}]
"""


class Hosts:
    """host-a and host-b, each with a backend of the one VIP."""

    def __init__(self, folder: Path) -> None:
        self.addresses = {"host-a": "127.0.0.1", "host-b": "127.0.0.2"}
        self.backends = {name: Echo(name.encode(), address) for name, address in self.addresses.items()}
        self.a = self._host(folder / "a", "host-a", 1)
        seed = self.a.ready()["parts"]["gossip"]["facts"]["listen"][0]
        self.b = self._host(folder / "b", "host-b", 60, seed)
        for one in (self.a, self.b):
            one.until("/v1/vips", lambda vips: [len(vip["backend"]) for vip in vips] == [2])

    def _host(self, folder: Path, name: str, first: int, *seeds: str) -> Daemon:
        folder.mkdir()
        told = ", ".join(f'"{seed}"' for seed in seeds)
        address, net = self.addresses[name], vip_net()
        text = CONFIG.format(name=name, address=address, seeds=told, net=net, first=first, last=first + 50)
        daemon = Daemon(folder, text)
        (daemon.services / "web.toml").write_text(
            SERVICE.format(name=name, address=address, port=self.backends[name].port)
        )
        daemon.start()
        return daemon

    def close(self) -> None:
        for daemon in (self.a, self.b):
            if daemon.process is not None:
                daemon.kill()
        for backend in self.backends.values():
            backend.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def vip(daemon: Daemon) -> tuple[str, int]:
    (told,) = daemon.until("/v1/vips?detail", lambda vips: all(vip["address"] for vip in vips))
    return told["address"][0], 8000


def connect(where: tuple[str, int]) -> tuple[socket.socket, str]:
    """A connection, and whose it is."""
    connection = socket.create_connection(where, PATIENCE)
    return connection, connection.recv(100).decode()


def reached(where: tuple[str, int], count: int = 20) -> set[str]:
    """Who takes new connections."""
    names = set()
    for _ in range(count):
        connection, name = connect(where)
        connection.close()
        names.add(name)
    return names


def hold(where: tuple[str, int], wanted: str) -> socket.socket:
    """A connection to this backend, that stays."""
    while True:
        connection, name = connect(where)
        if name == wanted:
            return connection
        connection.close()


def echoes(connection: socket.socket) -> bool:
    connection.sendall(b"still there?")
    return connection.recv(100) == b"still there?"


def states(told: Any) -> dict[str, str]:
    return {one["name"]: one["state"] for one in told["members"]}


def drain(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    command = Path(sys.executable).with_name("dcosnet")
    return subprocess.Popen(
        [str(command), "--api", f"unix:{daemon.socket}", "drain", *arguments], stdout=subprocess.PIPE, text=True
    )


def drained(daemon: Daemon, **expected: Any) -> None:
    """Wait until it shows the one drain so."""
    daemon.until("/v1/drains", lambda told: [{**one, **expected} for one in told["drains"]] == told["drains"] != [])


def test_a_host_is_drained_everywhere_until_anybody_ends_it(hosts: Hosts) -> None:
    """Open connections go on and are counted to the last; new ones go elsewhere; who said it may die meanwhile."""
    a, b = hosts.a, hosts.b
    there = vip(a)
    with hold(there, "host-b") as old, hold(there, "host-a") as other:
        with drain(b, "host-b", "--note", "new kernel", "--wait", "--timeout", "60s") as waiting:
            assert waiting.stdout is not None
            drained(a, what="host/host-b", node="host-b", note="new kernel", silent=[], flows=1, taking=[])
            assert reached(there) == {"host-a"}
            assert reached(vip(b)) == {"host-a"}
            assert echoes(old)
            assert waiting.poll() is None
            old.close()
            assert waiting.wait(PATIENCE) == 0
            lines = waiting.stdout.read().splitlines()
        assert (lines[0], lines[-1]) == ("host/host-b drains", "drained")
        assert "1 left: host-a 1" in lines
        assert echoes(other)

        b.kill()
        a.until("/v1/members", lambda told: states(told)["host-b"] != "alive")
        drained(a, node="host-b", note="new kernel")
        b.start()
        for one in (a, b):
            one.until("/v1/members", lambda told: states(told) == {"host-a": "alive", "host-b": "alive"})
            drained(one, node="host-b", note="new kernel", silent=[])
        assert reached(there) == {"host-a"}

        b.kill()
        with drain(a, "--end", "host-b") as ended:
            assert ended.wait(PATIENCE) == 0
        b.start()
        for one in (a, b):
            one.until("/v1/vips?detail", lambda vips: [end["weight"] for v in vips for end in v["backend"]] == [1, 1])
            one.until("/v1/drains", lambda told: told["drains"] == [])
        a.wait(lambda: reached(there) == {"host-a", "host-b"})
        assert echoes(other)


def test_a_vip_of_which_all_is_drained_refuses_and_says_so(hosts: Hosts) -> None:
    """It was said of each of them; what is open goes on."""
    there = vip(hosts.b)
    old = hold(there, "host-b")
    with drain(hosts.a, "web.shop") as done:
        assert done.wait(PATIENCE) == 0
    drained(hosts.b, what="service/shop/web", emptied=["web.shop.l4lb.thisdcos.directory:8000"], silent=[], flows=1)
    with pytest.raises(OSError), socket.create_connection(there, PATIENCE) as refused:
        if not refused.recv(100):
            raise ConnectionResetError
    assert echoes(old)
    old.close()
    drained(hosts.b, drained=True)
