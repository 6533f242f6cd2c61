"""
A real ZooKeeper ensemble for tests: three servers, each with data, addresses and ports of its own.

Servers are killed as a crash does it, by their own pid, and started again on
what they have written. Nothing here waits for ever, and nothing sleeps without
looking whether it may go on.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from daemon import vip_net

JAR = Path("/usr/share/java/zookeeper.jar")
"""Where Debian's zookeeperd has it; its manifest names what else it needs."""
PATIENCE = 60.0
"""Seconds until what does not come is a failure."""

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
# Small and quick to start; what is written need not outlive the machine, only the process.
_JAVA = ("-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no")
_PAUSE = 0.05
_CONFIG = """\
tickTime=1000
initLimit=30
syncLimit=10
maxSessionTimeout=4000
dataDir={folder}/data
clientPort={port}
clientPortAddress={address}
admin.enableServer=false
4lw.commands.whitelist=srvr,dump
{ensemble}
"""


def wait(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(_PAUSE)


class Server:
    """One member of the ensemble."""

    def __init__(self, java: str, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.port, self._quorum, self._election = _free_ports(address)
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def member(self) -> str:
        """What each server is told of this one."""
        return f"{self.address}:{self._quorum}:{self._election}"

    @property
    def runs(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def prepare(self, number: int, ensemble: str) -> None:
        """Write its configuration."""
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "data" / "myid").write_text(f"{number}\n")
        text = _CONFIG.format(folder=self.folder, port=self.port, address=self.address, ensemble=ensemble)
        (self.folder / "zoo.cfg").write_text(text)

    def start(self) -> None:
        """Start it; `Ensemble.wait` waits until it serves."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._java, *_JAVA, "-cp", str(JAR), _MAIN, str(self.folder / "zoo.cfg")],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )

    def kill(self) -> None:
        """As a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def ask(self, word: str) -> str:
        """What it says to one of the four-letter words; nothing where it does not answer."""
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return ""

    @property
    def mode(self) -> str:
        """ "leader", "follower", or nothing while it serves nobody."""
        found = re.search(r"^Mode: (\w+)$", self.ask("srvr"), re.MULTILINE)
        return found[1] if found else ""


class Ensemble:
    """Three servers, each at an address of 127/8 that no other process uses."""

    def __init__(self, java: str, folder: Path) -> None:
        self.servers = [Server(java, folder / str(number), f"{vip_net()}.{250 + number}") for number in (1, 2, 3)]
        members = "\n".join(f"server.{number}={server.member}" for number, server in enumerate(self.servers, 1))
        for number, server in enumerate(self.servers, 1):
            server.prepare(number, members)

    @property
    def hosts(self) -> str:
        """What a client is told."""
        return ",".join(f"{server.address}:{server.port}" for server in self.servers)

    @property
    def leader(self) -> Server:
        """The server that leads the others; waits until one does."""
        found: list[Server] = []

        def leads() -> bool:
            found[:] = [server for server in self.servers if server.runs and server.mode == "leader"]
            return bool(found)

        wait(leads, lambda: "no server ever leads the ensemble")
        return found[0]

    def start(self) -> None:
        """Start each server that does not run."""
        for server in self.servers:
            if not server.runs:
                server.start()

    def wait(self) -> None:
        """Until all that run serve, and one of them leads."""
        running = [server for server in self.servers if server.runs]

        def serve() -> bool:
            modes = [server.mode for server in running]
            return all(modes) and "leader" in modes

        wait(serve, lambda: f"the ensemble never serves: {[server.ask('srvr') for server in running]}")

    def sessions(self) -> set[int]:
        """The sessions that have not ended, as the leader counts them."""
        return {int(found, 16) for found in re.findall(r"^\s+(0x[0-9a-f]+)$", self.leader.ask("dump"), re.MULTILINE)}

    def kill(self) -> None:
        """Kill all that run."""
        for server in self.servers:
            server.kill()


def _free_ports(address: str) -> list[int]:
    """Three ports that nobody has; ZooKeeper cannot be given port 0 and asked."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(3)]
        for probe in probes:
            probe.bind((address, 0))
        return [probe.getsockname()[1] for probe in probes]
