"""A whole node in this process: every part as it is, real sockets on loopback, port 0."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from daemon import Daemon
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.names import client, dns

from dcosnet.assemble import Toolbox, assemble, configure
from dcosnet.config.merge import read
from dcosnet.interfaces import IViews, IZone

CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[files]
path = "services.d"
[register]
[l4lb]
plane = "userspace"
named_vips = ["{first}-{last}"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["tcp:0:interface=127.0.0.1", "unix:api.sock:mode=600"]
"""

PATIENCE = 10.0
"""Seconds after which a change that does not come is a failure."""


class Node:
    """An assembled node with the means to look at it."""

    def __init__(self, folder: Path, config: str) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.folder = folder
        self.services = folder / "services.d"
        self.services.mkdir()
        (folder / "dcosnet.toml").write_text(config)
        self.tree: MultiService
        self.toolbox: Toolbox
        self.tree, self.toolbox = assemble(configure(read(folder / "dcosnet.toml", {}, [])), reactor)

    def start(self) -> None:
        self.tree.privilegedStartService()
        self.tree.startService()

    def write(self, name: str, text: str) -> None:
        """Put a services file in place, atomically as an editor does."""
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.services / name)

    def zone(self, apex: str):
        return next(each.zone for each in self.toolbox.all(IZone) if each.apex == apex)

    @property
    def vips(self):
        return self.toolbox[IViews].vips

    def until(self, cell, holds) -> Deferred:
        """Fires with the cell's value as soon as `holds(value)`; fails after PATIENCE."""
        done: Deferred = Deferred()

        def look(value, changed) -> None:
            if not done.called and holds(value):
                done.callback(value)

        stop = cell.subscribe(look)
        return done.addTimeout(PATIENCE, self.reactor).addBoth(lambda result: (stop(), result)[1])

    def addresses(self, name: str) -> Deferred:
        """Fires with the A records that the server gives for a name, sorted; fails with the DNS error."""
        host, _, port = self.toolbox.describe()["dns"]["listen"][0].rpartition(":")
        resolver = client.Resolver(servers=[(host, int(port))], timeout=(PATIENCE,), reactor=self.reactor)
        return resolver.lookupAddress(name).addCallback(
            lambda answer: sorted(r.payload.dottedQuad() for r in answer[0] if r.type == dns.A)
        )


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[type]:
    """A node; the VIP range is this process's own, so that two runs do not meet."""
    nodes = []

    def make(services: dict[str, str] | None = None, config: str = CONFIG) -> Node:
        net = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        node = Node(tmp_path, config.format(first=f"{net}.1", last=f"{net}.250"))
        nodes.append(node)
        for name, text in (services or {}).items():
            node.write(name, text)
        node.start()
        return node

    yield make
    for node in nodes:
        pytest_twisted.blockon(node.tree.stopService())


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[type]:
    """A real process; killed at the end of the test if it still runs."""
    daemons = []

    def make(config: str, environment: dict[str, str] | None = None) -> Daemon:
        daemons.append(Daemon(tmp_path, config, environment))
        return daemons[-1]

    yield make
    for daemon in daemons:
        if daemon.process is not None:
            daemon.kill()


@pytest.fixture
def taken_port() -> Iterator[tuple[str, int]]:
    """An address that somebody listens on already."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()
