"""Listeners outlive the process: with a service manager of the test's own, that keeps what it is given."""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from daemon import HOST, PATIENCE, Daemon, named_vips, vip_net

# The process id must be the daemon's own, which is known once it is there.
START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
for number, kept in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(kept, 100 + number)
    os.close(kept)
for number in range(len(sys.argv[1].split(","))):
    os.dup2(100 + number, 3 + number)
    os.close(100 + number)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """As systemd: takes what a service tells it, and gives kept sockets to the next start."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self.kept: dict[str, int] = {}
        self.told: list[str] = []

    def read(self) -> None:
        while True:
            try:
                data, rights, _flags, _address = self._socket.recvmsg(4096, socket.CMSG_SPACE(64))
            except BlockingIOError:
                return
            lines = data.decode().splitlines()
            name = next((line.partition("=")[2] for line in lines if line.startswith("FDNAME=")), "")
            for _level, _type, passed in rights:
                self.kept[name] = array.array("i", passed)[0]
            if "FDSTOREREMOVE=1" in lines:
                os.close(self.kept.pop(name))
            self.told += lines

    def bound(self) -> set[tuple[str, int, bool]]:
        """Where the kept sockets are bound, and whether they are TCP."""
        self.read()
        found = set()
        for descriptor in self.kept.values():
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                found.add((*sock.getsockname(), sock.type == socket.SOCK_STREAM))
        return found

    def close(self) -> None:
        self._socket.close()
        for descriptor in self.kept.values():
            os.close(descriptor)


class Managed(Daemon):
    """A daemon that is started as a service of type notify."""

    manager: Manager

    @property
    def argv(self) -> list[str]:
        kept = self.manager.kept
        if not kept:
            return super().argv
        self.environment |= {"LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(kept)}
        return [sys.executable, "-c", START, ",".join(map(str, kept.values())), *super().argv]

    def start(self) -> None:
        self.passed = tuple(self.manager.kept.values())
        super().start()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path)) as made:
        yield made


@pytest.fixture
def daemon(tmp_path: Path, manager: Manager) -> Iterator[Managed]:
    made = Managed(tmp_path, HOST + named_vips(), {"NOTIFY_SOCKET": str(manager.path)})
    made.manager = manager
    yield made
    if made.process is not None:
        made.kill()


class Backend(threading.Thread):
    """Greets over TCP, answers over UDP."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self._answers = threading.Thread(target=self._answer, daemon=True)
        self._answers.start()

    def run(self) -> None:
        while True:
            try:
                client, _address = self.tcp.accept()
            except OSError:
                return
            with client:
                client.sendall(b"hello")

    def _answer(self) -> None:
        while True:
            data, address = self.udp.recvfrom(100)
            if not data:
                return
            self.udp.sendto(b"heard " + data, address)

    def close(self) -> None:
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()
        self.udp.sendto(b"", ("127.0.0.1", self.port))
        self._answers.join(PATIENCE)
        self.join(PATIENCE)
        self.udp.close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    made.start()
    yield made
    made.close()


def service(name: str, port: int, vip: str, protocol: str = "tcp") -> str:
    return (
        f'[[service]]\nname = "{name}"\ngroup = "shop"\naddress = "127.0.0.1"\n'
        f'ports = [{{ port = {port}, vip = "{vip}", protocol = "{protocol}" }}]\n'
    )


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_who_connects_during_a_restart_is_served_after_it(daemon, manager, backend, ended_by) -> None:
    """Also a datagram is kept; what is wanted no longer is given up once the tables are whole again."""
    net = vip_net()
    here, gone = (f"{net}.251", 7001), (f"{net}.252", 7001)
    kept = service("web", backend.port, f"{here[0]}:7001") + service("dns", backend.port, f"{here[0]}:7001", "udp")
    file = daemon.services / "web.toml"
    file.write_text(kept + service("old", backend.port, f"{gone[0]}:7001"))
    daemon.start()
    all_three = {(*here, True), (*here, False), (*gone, True)}
    daemon.wait(lambda: manager.bound() == all_three)
    daemon.wait(lambda: (manager.read(), "READY=1" in manager.told)[1])

    daemon.process.send_signal(ended_by)
    daemon.process.wait(PATIENCE)
    assert manager.bound() == all_three, "a process that ends leaves its sockets"
    assert ("STOPPING=1" in manager.told) == (ended_by == signal.SIGTERM)
    file.write_text(kept)

    with socket.create_connection(here, PATIENCE) as early, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(PATIENCE)
        datagrams.sendto(b"you", here)
        daemon.start()
        assert early.recv(100) == b"hello"
        assert datagrams.recvfrom(100) == (b"heard you", here)
    daemon.wait(lambda: manager.bound() == {(*here, True), (*here, False)})
    with socket.socket() as probe:
        assert probe.connect_ex(gone) != 0

    file.write_text("")
    daemon.wait(lambda: manager.bound() == set())
    with socket.socket() as probe:
        assert probe.connect_ex(here) != 0


def test_a_daemon_that_waits_says_what_for(daemon, manager) -> None:
    """READY comes when all parts are; until then the status names the part and its reason."""
    daemon.start()
    daemon.wait(lambda: (manager.read(), "READY=1" in manager.told)[1])
    assert "STATUS=all parts are ready" in manager.told
    assert manager.told.index("WATCHDOG=1") <= manager.told.index("READY=1")
