"""A name is told only while its VIP listens: a client asks and connects all the time while VIPs come, move and go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import dns.message
import dns.query
import dns.rcode
import pytest
from daemon import HOST, PATIENCE, Daemon, named_vips
from echo import Echo

PORT = 7002
STEPS = 40
TOGETHER = 3


def service(name: str, port: int, vip: str) -> str:
    return (
        f'[[service]]\nname = "{name}"\ngroup = "shop"\naddress = "127.0.0.1"\n'
        f'ports = [{{ port = {port}, vip = "{vip}" }}]\n'
    )


class Client(threading.Thread):
    """
    Resolves and connects, name by name.

    Between an answer and a connection the VIP may go: that is no fault. A name
    that is still told after the connection was refused is one.
    """

    def __init__(self, server: tuple[str, str]) -> None:
        super().__init__(daemon=True)
        self._server = server
        self.names: tuple[str, ...] = ()
        self.faults: list[str] = []
        self.answered = 0
        self.over = threading.Event()

    def resolve(self, name: str) -> set[str]:
        query = dns.message.make_query(f"{name}.shop.l4lb.thisdcos.directory", "A")
        address, port = self._server
        reply = dns.query.udp(query, address, port=int(port), timeout=PATIENCE)
        return {str(data) for found in reply.answer for data in found}

    def run(self) -> None:
        while not self.over.is_set():
            for name in self.names:
                for address in self.resolve(name):
                    self._connect(name, address)

    def _connect(self, name: str, address: str) -> None:
        try:
            with socket.create_connection((address, PORT), PATIENCE) as connection:
                if connection.recv(100) == b"hello":
                    self.answered += 1
                else:
                    self.faults.append(f"{name} at {address} did not answer")
        except ConnectionError as error:
            if address in self.resolve(name):
                self.faults.append(f"{name} is told to be at {address}: {error}")


@pytest.fixture
def backend() -> Iterator[int]:
    made = Echo(b"hello")
    yield made.port
    made.close()


@pytest.fixture
def daemon(make_daemon: Callable[[str], Daemon]) -> Daemon:
    return make_daemon(HOST + named_vips() + '[dns]\nlisten = ["127.0.0.1:0"]\n')


def test_whoever_asks_and_connects_is_never_refused_by_a_name_that_is_told(daemon, backend) -> None:
    daemon.start()
    client = Client(daemon.dns)
    homes: dict[str, set[str]] = {}
    fixed = ""

    def write(*names: str) -> None:
        text = fixed + "".join(service(name, backend, f"/{name}:{PORT}") for name in names)
        daemon.write("web.toml", text)

    client.start()
    try:
        for step in range(STEPS):
            names = [f"web{number}" for number in range(step, step + TOGETHER)]
            client.names = tuple(f"web{number}" for number in range(max(0, step - TOGETHER), step + TOGETHER))
            write(*names)
            daemon.wait(lambda names=names: all(client.resolve(name) for name in names))
            if step % 4 == 0:
                # A VIP that is given by this address takes it from the name, which moves.
                (old,) = homes[names[-1]] = client.resolve(names[-1])
                fixed += service(f"fixed{step}", backend, f"{old}:443")
                write(*names)
                daemon.wait(lambda name=names[-1], old=old: client.resolve(name) not in ({old}, set()))
    finally:
        client.over.set()
        client.join(PATIENCE)
    assert client.faults == []
    assert client.answered > STEPS
