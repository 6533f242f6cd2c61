#!/usr/bin/env python3
"""
What a Mesos cluster of 1 000 agents and 50 000 tasks costs a node that hears its master.

One `twistd dcosnet` on CPU 0, with gossip, VIPs' listeners and all else off, and a
fake master on CPU 1 that has its snapshot ready as bytes. Measured: from the
request for the stream to the last name served, the longest stall of the
reactor, resident memory, from one changed task to its changed answer, what a
burst of changes costs, and a framework that gets another name. The stalls are
measured inside of the daemon by a part of this benchmark (`_lateness.py`).
Tasks are as large as Marathon's: 1.1 KB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import platform
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
from common import cpu_seconds, need, pin, query

from dcosnet.testing.fake_mesos import ClusterPort, FakeCluster, FakeMaster, Recording

HERE = Path(__file__).resolve().parent
SERVER, LOAD = 0, 1
PATIENCE = 120.0
"""Seconds after which the daemon will not serve it any more."""
KINDS = ("agentip", "containerip", "autoip")

CONFIG = """
[node]
name = "bench"
address = "127.0.0.1"
state_dir = "state"
[mesos]
masters = ["{master}"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
[lateness]
"""


class Timed(Recording):
    """A snapshot that notes when it was asked for."""

    asked = 0.0

    def beginning(self, heartbeat: float) -> tuple[bytes, ...]:
        self.asked = time.perf_counter()
        return tuple(super().beginning(heartbeat))


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


class Daemon:
    """A running daemon and the means to ask it."""

    def __init__(self, folder: Path, master: str) -> None:
        self.folder = folder
        (folder / "dcosnet.toml").write_text(CONFIG.format(master=master))
        plugins = folder / "more" / "dcosnet" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "lateness.py").write_text("from _lateness import LatenessPlugin\n\nlateness = LatenessPlugin()\n")
        twistd = Path(sys.executable).with_name("twistd")
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                "taskset",
                "-c",
                str(SERVER),
                str(twistd),
                "-n",
                "--pidfile=",
                "dcosnet",
                "-c",
                str(folder / "dcosnet.toml"),
            ],
            stdout=self.log,
            stderr=self.log,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder / 'more'}:{HERE}"},
        )
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)

    def get(self, path: str) -> Any:
        connection = Unix(self.folder / "state" / "api.sock")
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def up(self) -> None:
        """Wait until it answers HTTP, and find its DNS server."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the daemon did not come up:\n{(self.folder / 'log').read_text()[-3000:]}")
            try:
                listen = self.get("/v1/status")["parts"]["dns"]["facts"]["listen"][0]
            except OSError:
                time.sleep(0.05)
                continue
            host, _, port = listen.rpartition(":")
            self.socket.connect((host, int(port)))
            return

    def ask(self, query: bytes) -> bytes:
        self.socket.send(query)
        while True:
            reply = self.socket.recv(65535)
            if reply[:2] == query[:2]:
                return reply

    def memory(self, field: str = "VmRSS") -> float:
        """In MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(f"{field}:")[2].split()[0]) / 1024

    def stop(self) -> None:
        self.socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def name(app: int, kind: str = "containerip", framework: str = "marathon") -> str:
    return f"app-{app}.{framework}.{kind}.dcos.thisdcos.directory"


def build(agents: int, tasks: int, instances: int) -> tuple[FakeCluster, list[tuple[str, str]]]:
    """A cluster as Marathon makes it: apps with some instances each, a mapped port and a VIP label."""
    cluster = FakeCluster(keep_log=False)
    marathon = cluster.add_framework("marathon")
    hosts = [cluster.add_agent(f"10.{index >> 8}.{index & 255}.1") for index in range(agents)]
    keys = []
    for index in range(tasks):
        app = index // instances
        port = ClusterPort(8080, host_port=1025 + index // agents, name="http", vips=[f"/app-{app}:80"])
        keys.append(
            cluster.add_task(
                f"app-{app}",
                marathon,
                hosts[index % agents],
                addresses=[str(IPv4Address(0x09000000 + index))],
                ports=[port],
                labels={"HAPROXY_GROUP": "external", "DCOS_SPACE": f"/group/app-{app}", "DCOS_PACKAGE_NAME": "example"},
                healthy=True,
                checked=True,
            )
        )
    return cluster, keys


def measure(options: argparse.Namespace, figures: dict[str, list[float]]) -> None:
    from twisted.internet import reactor
    from twisted.internet.threads import blockingCallFromThread

    cluster, keys = build(options.agents, options.tasks, options.instances)
    snapshot = msgspec.json.encode(cluster.subscribed())
    print(f"snapshot of {len(snapshot) / 1e6:.1f} MB", flush=True)
    recording = Timed([snapshot])
    master = FakeMaster(reactor, recording)
    events: list[bytes] = []
    cluster.watch(lambda event: events.append(msgspec.json.encode(event)))
    blockingCallFromThread(reactor, master.start)
    # Asked for the stream while it starts, the daemon is told to wait, so that its own start is not measured.
    master.refuse(503)

    def note(title: str, value: float) -> None:
        figures[title].append(value)
        print(f"  {title:<58}{value:10.1f}", flush=True)

    with tempfile.TemporaryDirectory(prefix="dcosnet-bench-") as folder:
        daemon = Daemon(Path(folder), master.url)
        try:
            daemon.up()
            pin(daemon.process.pid, SERVER)
            note("memory before, MB", daemon.memory())
            daemon.get("/v1/lateness")
            used = cpu_seconds(daemon.process.pid)
            blockingCallFromThread(reactor, master.recover)
            last = [query(name((len(keys) - 1) // options.instances, kind)) for kind in KINDS]
            deadline = time.monotonic() + PATIENCE
            peak, document = daemon.memory(), math.nan
            while not (recording.asked and all(struct.unpack_from("!H", daemon.ask(each), 6)[0] for each in last)):
                time.sleep(0.005)
                # It goes all at once, and nothing else of that size does.
                resident = daemon.memory()
                if peak - resident > len(snapshot) / 2e6:
                    document, peak = peak, resident
                peak = max(peak, resident)
                if time.monotonic() > deadline or daemon.process.poll() is not None:
                    sys.exit(f"never served:\n{(Path(folder) / 'log').read_text()[-3000:]}")
            note("snapshot asked for to last name served, s", time.perf_counter() - recording.asked)
            verify(daemon, keys, options)
            time.sleep(options.settle)
            note("CPU of that, s", cpu_seconds(daemon.process.pid) - used)
            stalls(daemon, note, "while taking the snapshot")
            if not math.isnan(document):  # a look at every 5 ms may miss it on a busy machine
                note("memory when the document was let go, MB", document)
            note("memory at its highest, MB", daemon.memory("VmHWM"))
            note("memory after, without the document, MB", daemon.memory())

            delays = [change(daemon, master, cluster, keys, events, index) for index in range(options.changes)]
            note("changed task to changed answer, median, ms", statistics.median(delays) * 1e3)
            note("changed task to changed answer, 99 of 100, ms", sorted(delays)[len(delays) * 99 // 100 - 1] * 1e3)
            note("changed task to changed answer, longest, ms", max(delays) * 1e3)
            stalls(daemon, note, "while tasks change one by one")

            used = cpu_seconds(daemon.process.pid)
            note(
                f"burst of {options.burst} changes to the last answer, s",
                burst(daemon, master, cluster, keys, events, options),
            )
            note("CPU per change of a burst, us", (cpu_seconds(daemon.process.pid) - used) / options.burst * 1e6)
            stalls(daemon, note, "in the burst")

            note("renamed framework to the last new name, s", rename(daemon, master, cluster, keys, events, options))
            stalls(daemon, note, "while the framework is renamed")
            note("memory at the end, MB", daemon.memory())
        finally:
            daemon.stop()
            blockingCallFromThread(reactor, master.stop)


def stalls(daemon: Daemon, note: Any, when: str) -> None:
    told = daemon.get("/v1/lateness")
    note(f"longest stall {when}, ms", told["longest"] * 1e3)
    note(f"stalls over 50 ms {when}", told["over"])
    note(f"longest collection {when}, ms", told["collection"] * 1e3)
    for where, times in told["blamed"].items():
        print(f"      {times:4} x {where}", flush=True)


def verify(daemon: Daemon, keys: list[tuple[str, str]], options: argparse.Namespace) -> None:
    """What is served is right, and not only there: each address of a thousand apps."""
    apps = len(keys) // options.instances
    for app in random.sample(range(apps), min(1000, apps)):
        reply = daemon.ask(query(name(app)))
        for index in range(app * options.instances, (app + 1) * options.instances):
            assert IPv4Address(0x09000000 + index).packed in reply, f"{name(app)} lacks an address"


def change(
    daemon: Daemon,
    master: FakeMaster,
    cluster: FakeCluster,
    keys: list[tuple[str, str]],
    events: list[bytes],
    number: int,
) -> float:
    """Seconds from an event to the answer that it changes."""
    index = random.randrange(len(keys))
    address = IPv4Address(0xC6120000 + number)
    cluster.update_task(keys[index], addresses=[str(address)])
    asked = query(name(int(cluster.tasks[keys[index]].name.removeprefix("app-"))))
    daemon.ask(asked)
    time.sleep(random.uniform(0.03, 0.06))
    began = send(master, [events.pop()])
    deadline = began + PATIENCE
    while address.packed not in daemon.ask(asked):
        if time.perf_counter() > deadline:
            sys.exit(f"{address} was never served")
    return time.perf_counter() - began


def burst(
    daemon: Daemon,
    master: FakeMaster,
    cluster: FakeCluster,
    keys: list[tuple[str, str]],
    events: list[bytes],
    options: argparse.Namespace,
) -> float:
    """Seconds from many events at once to the answer that the last one changes."""
    for number in range(options.burst):
        address = IPv4Address(0xC6130000 + number)
        cluster.update_task(keys[number * 7919 % len(keys)], addresses=[str(address)])
    changed = cluster.tasks[keys[(options.burst - 1) * 7919 % len(keys)]]
    asked = query(name(int(changed.name.removeprefix("app-"))))
    sent, events[:] = events[:], []
    began = send(master, sent)
    while address.packed not in daemon.ask(asked):
        if time.perf_counter() > began + PATIENCE:
            sys.exit("the burst was never served")
        time.sleep(0.001)
    return time.perf_counter() - began


def rename(
    daemon: Daemon,
    master: FakeMaster,
    cluster: FakeCluster,
    keys: list[tuple[str, str]],
    events: list[bytes],
    options: argparse.Namespace,
) -> float:
    """Seconds from a new name of the framework to that in all names that are looked at, and the end of the old ones."""
    cluster.update_framework(keys[0][0], name="renamed")
    began = send(master, [events.pop()])
    apps = len(keys) // options.instances
    for app in random.sample(range(apps), min(200, apps)):
        new, old = (query(name(app, framework=framework)) for framework in ("renamed", "marathon"))
        while not struct.unpack_from("!H", daemon.ask(new), 6)[0] or struct.unpack_from("!H", daemon.ask(old), 6)[0]:
            if time.perf_counter() > began + PATIENCE:
                sys.exit(f"app-{app} was never renamed")
            time.sleep(0.02)
    return time.perf_counter() - began


def send(master: FakeMaster, events: list[bytes]) -> float:
    """Send them from the reactor's thread; when that began."""
    from twisted.internet import reactor
    from twisted.internet.threads import blockingCallFromThread

    def run() -> float:
        began = time.perf_counter()
        for event in events:
            master.send(event)
        return began

    return blockingCallFromThread(reactor, run)


@contextmanager
def running() -> Iterator[None]:
    """The reactor in a thread, for the fake master."""
    from twisted.internet import reactor

    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--instances", type=int, default=5, help="tasks of one name; 1 makes the most names")
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--burst", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settle", type=float, default=3.0, help="seconds to wait before memory is read")
    parser.add_argument("--blame", action="store_true", help="show what ran in stalls over 50 ms")
    options = parser.parse_args()
    if options.blame:
        os.environ["DCOSNET_BENCH_BLAME"] = "1"
    need("taskset")
    os.sched_setaffinity(0, {LOAD})
    figures: dict[str, list[float]] = defaultdict(list)
    with running():
        for _ in range(options.rounds):
            measure(options, figures)
    print(
        f"\nPython {platform.python_version()}: {options.agents} agents, {options.tasks} tasks,"
        f" {options.tasks // options.instances} names of each kind; {options.rounds} rounds"
    )
    print(f"  {'':<58}{'median':>10}{'least':>10}{'most':>10}")
    for title, values in figures.items():
        print(f"  {title:<58}{statistics.median(values):10.1f}{min(values):10.1f}{max(values):10.1f}")


if __name__ == "__main__":
    main()
