#!/usr/bin/env python3
"""
What it gains that an agent is polled at once when the master's stream shows a change on it.

Two `twistd dcosnet` hear of the same agent: one with a master on its node as
well, one with the agent alone, which has to wait for the next poll. Measured on
both, for each of the same changes: from the change at agent and master to the
changed answer over UDP. Changes come at any time between two polls. The daemons
run on CPU 0; the fake agent, the fake master and the asker on CPU 1.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from common import need, query, start

from dcosnet.testing.fake_mesos import FakeAgent, FakeCluster, FakeMaster

SERVER, LOAD = 0, 1
PORT = 5401
"""Of the first daemon's DNS server; the second one has the next."""
PATIENCE = 60.0
"""Seconds until a change must be served."""
PAUSE = 0.001
"""Seconds between two questions, which is how exact the figures are."""
POLL = 2.0
"""Seconds between two polls, as the default is; a tenth more or less is the jitter of the source."""

CONFIG = """
[node]
name = "bench"
address = "127.0.0.1"
state_dir = "state"
[mesos]
{mesos}
[dns]
listen = ["127.0.0.1:{port}"]
"""


class Daemon:
    """A running daemon and its answers."""

    def __init__(self, folder: Path, port: int, mesos: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "dcosnet.toml").write_text(CONFIG.format(mesos=mesos, port=port))
        twistd = str(Path(sys.executable).with_name("twistd"))
        with (folder / "log").open("wb") as log:
            command = [twistd, "-n", "--pidfile=", "dcosnet", "-c", str(folder / "dcosnet.toml")]
            self._process = start(command, SERVER, stdout=log, stderr=log, cwd=folder)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.5)
        self._socket.connect(("127.0.0.1", port))

    def answers(self, name: str, address: IPv4Address) -> bool:
        """Whether the address is among those of the name."""
        question = query(name)
        try:
            self._socket.send(question)
            while True:
                reply = self._socket.recv(65535)
                if reply[:2] == question[:2]:  # others are late
                    return address.packed in reply
        except OSError:
            return False  # it is not up yet, or busy

    def stop(self) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """The reactor in a thread, for the fakes; what is given runs there."""
    from twisted.internet import reactor
    from twisted.internet.threads import blockingCallFromThread

    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    try:
        yield lambda run: blockingCallFromThread(reactor, run)
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join(10)


def served(daemons: dict[str, Daemon], name: str, address: IPv4Address) -> dict[str, float]:
    """Seconds until each of the daemons answers so."""
    began = time.perf_counter()
    took: dict[str, float] = {}
    while len(took) < len(daemons):
        for title, daemon in daemons.items():
            if title not in took and daemon.answers(name, address):
                took[title] = time.perf_counter() - began
        if time.perf_counter() - began > PATIENCE:
            missing = daemons.keys() - took.keys()
            sys.exit(
                "\n".join(
                    f"{each} never served it:\n{(daemons[each].folder / 'log').read_text()[-3000:]}" for each in missing
                )
            )
        time.sleep(PAUSE)
    return took


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    from twisted.internet import reactor

    cluster = FakeCluster(keep_log=False)
    marathon = cluster.add_framework("marathon")
    hosts = [cluster.add_agent(f"127.0.{index >> 8}.{(index & 255) + 1}") for index in range(options.agents)]
    tasks = [
        cluster.add_task(f"app-{index}", marathon, host, addresses=[str(IPv4Address(0x09000000 + index))], healthy=True)
        for index, host in enumerate(host for host in hosts for _ in range(options.tasks))
    ]
    master, agent = FakeMaster(reactor, cluster), FakeAgent.of_cluster(reactor, cluster, hosts[0])
    figures: dict[str, list[float]] = {}
    with running() as run, tempfile.TemporaryDirectory(prefix="dcosnet-bench-") as folder, ExitStack() as stack:
        for server in (master, agent):
            run(server.start)
            stack.callback(run, server.stop)
        told = f'agent = "{agent.url}"'
        daemons = {
            "polled at once": Daemon(Path(folder) / "both", PORT, f'{told}\nmasters = ["{master.url}"]'),
            "polled every 2 s": Daemon(Path(folder) / "agent", PORT + 1, told),
        }
        for daemon in daemons.values():
            stack.callback(daemon.stop)
        served(daemons, name(0), IPv4Address(0x09000000))
        for number in range(options.changes):
            time.sleep(random.uniform(0.0, 1.1 * POLL))
            index, address = number % options.tasks, IPv4Address(0xC6120000 + number)
            run(lambda task=tasks[index], address=address: cluster.update_task(task, addresses=[str(address)]))
            for title, seconds in served(daemons, name(index), address).items():
                figures.setdefault(title, []).append(seconds)
    return figures


def name(index: int) -> str:
    return f"app-{index}.marathon.containerip.dcos.thisdcos.directory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=50, help="on each agent")
    parser.add_argument("--changes", type=int, default=100)
    options = parser.parse_args()
    need("taskset")
    os.sched_setaffinity(0, {LOAD})
    figures = measure(options)
    print(
        f"Python {platform.python_version()}: {options.agents} agents of {options.tasks} tasks, {options.changes} changes;"
        " ms from a change to its answer"
    )
    print(f"  {'':<20}{'median':>10}{'99 of 100':>12}{'longest':>10}")
    for title, values in figures.items():
        values.sort()
        ninety_nine = values[math.ceil(len(values) * 0.99) - 1]
        print(f"  {title:<20}{statistics.median(values) * 1e3:10.1f}{ninety_nine * 1e3:12.1f}{values[-1] * 1e3:10.1f}")


if __name__ == "__main__":
    main()
