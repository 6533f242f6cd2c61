#!/usr/bin/env python3
"""
What an answer costs: `twistd dcosnet` beside the DNS servers that are installed, in one run.

`local`: names of our own, 10 000 of them, each server from its own zone, and the
same names for all. `forward`: names that one upstream has to be asked
for, caches of the peers off. The server runs on CPU 0, dnsperf and the upstream
on CPU 1, one server at a time; the figure is the server's own CPU per answer.
The daemon is the real one, with its access list and counters, from a generated
services file. Needs dnsperf, knotd, taskset and two CPUs; unbound, nsd and
dnsmasq are measured where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from common import cpu_seconds, need, query, start, table

SERVER, LOAD = 0, 1
ZONE = "bench.agentip.dcos.thisdcos.directory"
NAMES = [f"app-{index}.{ZONE}" for index in range(10_000)]
FOREIGN = "example.bench"
FOREIGN_NAMES = [f"app-{index}.{FOREIGN}" for index in range(10_000)]
UPSTREAM = 5391
PATIENCE = 60.0
"""Seconds until a server must answer for its last name."""


def zone_file(names: list[str], apex: str) -> str:
    head = f"$ORIGIN {apex}.\n$TTL 5\n@ SOA ns root 1 60 180 86400 1\n@ NS ns\nns A 127.0.0.1\n"
    return head + "".join(f"{name}. A 127.0.0.1\n" for name in names)


def knot(folder: Path, port: int, names: list[str], apex: str) -> list[str]:
    place = folder / f"knot-{port}"
    place.mkdir()
    (place / "zone").write_text(zone_file(names, apex))
    (place / "conf").write_text(
        f"server:\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
        f"  rundir: {place}\ndatabase:\n  storage: {place}\n"
        f"zone:\n  - domain: {apex}\n    storage: {place}\n    file: zone\n    zonefile-sync: -1\n    journal-content: none\n"
    )
    return ["knotd", "-c", str(place / "conf")]


def nsd(folder: Path, port: int, names: list[str], apex: str) -> list[str]:
    place = folder / f"nsd-{port}"
    place.mkdir()
    (place / "zone").write_text(zone_file(names, apex))
    (place / "conf").write_text(
        f'server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: ""\n  chroot: ""\n  database: ""\n'
        f"  zonesdir: {place}\n  pidfile: {place}/pid\n  xfrdfile: {place}/xfrd\n  zonelistfile: {place}/zones\n"
        f"  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\nzone:\n  name: {apex}\n  zonefile: zone\n"
    )
    return ["nsd", "-d", "-c", str(place / "conf")]


def unbound(folder: Path, port: int, names: list[str], apex: str) -> list[str]:
    own = f'  local-zone: "{apex}." static\n' + "".join(f'  local-data: "{name}. 5 IN A 127.0.0.1"\n' for name in names)
    forward = (
        f'  cache-max-ttl: 0\n  msg-cache-size: 0\nforward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{UPSTREAM}\n'
    )
    conf = folder / f"unbound-{port}"
    conf.write_text(
        f"server:\n  interface: 127.0.0.1@{port}\n  num-threads: 1\n  do-daemonize: no\n  use-syslog: no\n"
        f'  logfile: ""\n  verbosity: 0\n  chroot: ""\n  username: ""\n  pidfile: ""\n  module-config: "iterator"\n'
        f"  do-ip6: no\n  do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n"
        + (own if names else forward)
    )
    return ["unbound", "-d", "-c", str(conf)]


def dnsmasq(folder: Path, port: int, names: list[str], apex: str) -> list[str]:
    hosts = folder / f"hosts-{port}"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in names))
    conf = folder / f"dnsmasq-{port}"
    own = f"addn-hosts={hosts}\nlocal=/{apex}/\n"
    forward = f"cache-size=0\ndns-forward-max=10000\nserver=127.0.0.1#{UPSTREAM}\n"
    conf.write_text(
        f"port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\npid-file=\nuser=\n"
        + (own if names else forward)
    )
    return ["dnsmasq", "-k", "-C", str(conf)]


def dcosnet(folder: Path, port: int, names: list[str], _apex: str) -> list[str]:
    place = folder / f"dcosnet-{port}"
    (place / "services.d").mkdir(parents=True)
    services = (
        f'[[service]]\nname = "{name.partition(".")[0]}"\ngroup = "bench"\naddress = "127.0.0.1"\n' for name in names
    )
    (place / "services.d" / "bench.toml").write_text("\n".join(services))
    forward = "" if names else f'upstreams = ["127.0.0.1:{UPSTREAM}"]\n'
    (place / "dcosnet.toml").write_text(
        '[node]\nname = "bench"\naddress = "127.0.0.1"\nstate_dir = "state"\n[files]\npath = "services.d"\n'
        f'[dns]\nlisten = ["127.0.0.1:{port}"]\n{forward}'
    )
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "-n", "--pidfile=", "dcosnet", "-c", str(place / "dcosnet.toml")]


SERVERS = {"dcosnet": dcosnet, "knot": knot, "nsd": nsd, "unbound": unbound, "dnsmasq": dnsmasq}
VERSIONS = {
    "knot": ["knotd", "-V"],
    "nsd": ["nsd", "-v"],
    "unbound": ["unbound", "-V"],
    "dnsmasq": ["dnsmasq", "-v"],
    "dnsperf": ["dnsperf", "-h"],
}


def version(name: str) -> str:
    if name == "dcosnet":
        from importlib.metadata import version as installed

        return f"dcosnet {installed('dcosnet')}, Python {platform.python_version()}, Twisted {installed('twisted')}"
    done = subprocess.run(VERSIONS[name], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return f"{name} {found[0] if found else 'of unknown version'}"


def wait_for(port: int, name: str, process: subprocess.Popen[bytes]) -> None:
    """Until a name has an address; ends the run if that takes too long."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.settimeout(0.5)
            client.connect(("127.0.0.1", port))
            client.send(query(name))
            reply = client.recv(4096)
            if reply[3] & 15 == 0 and reply[6:8] != b"\0\0":
                return
        time.sleep(0.1)
    sys.exit(f"{process.args}: no answer for {name}")  # type: ignore[str-bytes-safe]


@contextlib.contextmanager
def running(command: list[str], cpu: int, port: int, name: str) -> Iterator[int]:
    process = start(command, cpu)
    try:
        wait_for(port, name, process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def measure(pid: int, port: int, queries: Path, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """CPU microseconds per answer, answers per second, queries lost."""
    before = cpu_seconds(pid)
    command = ["taskset", "-c", str(LOAD), "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(queries)]
    command += ["-l", str(arguments.seconds), "-c", "4", "-q", str(arguments.window)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before

    def figure(what: str) -> float:
        found = re.search(rf"{what}:\s+([\d.]+)", output)
        return float(found[1]) if found else 0.0

    codes = re.search(r"Response codes:\s+(.*)", output)
    if codes is None or not codes[1].startswith("NOERROR") or "," in codes[1]:
        sys.exit(f"not all answers were answers: {codes[1] if codes else output}")
    return used / figure("Queries completed") * 1e6, figure("Queries per second"), figure("Queries lost")


def run(mode: str, folder: Path, arguments: argparse.Namespace) -> None:
    local = mode == "local"
    names = NAMES if local else FOREIGN_NAMES
    queries = folder / "queries"
    queries.write_text("".join(f"{name} A\n" for name in names))
    servers = [name for name in SERVERS if name == "dcosnet" or shutil.which(VERSIONS[name][0])]
    if not local:
        servers = [name for name in servers if name not in ("knot", "nsd")]  # they do not forward
    cost, speed, lost = defaultdict(list), defaultdict(list), defaultdict(float)
    with contextlib.ExitStack() as stack:
        if not local:
            upstream = knot(folder, UPSTREAM, FOREIGN_NAMES, FOREIGN)
            stack.enter_context(running(upstream, LOAD, UPSTREAM, FOREIGN_NAMES[-1]))
        pids = {}
        for port, name in enumerate(servers, 5381):
            command = SERVERS[name](folder, port, NAMES if local else [], ZONE)
            pids[name] = stack.enter_context(running(command, SERVER, port, names[-1])), port
        for pid, port in pids.values():
            measure(pid, port, queries, arguments)  # a first time for everything: pages, tables, ready answers
        for _ in range(arguments.rounds):
            for name, (pid, port) in pids.items():
                microseconds, rate, missing = measure(pid, port, queries, arguments)
                cost[name].append(microseconds)
                speed[name].append(rate)
                lost[name] += missing
    table(f"DNS {mode}", "CPU microseconds per answer", cost, "knot" if local else "dnsmasq")
    print("  answers a second: " + ", ".join(f"{name} {max(speed[name]):.0f}" for name in servers))
    print("  queries lost: " + ", ".join(f"{name} {lost[name]:.0f}" for name in servers))
    print("  " + "; ".join(version(name) for name in [*servers, "dnsperf"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=["local", "forward", "all"], default="all")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=200, help="queries that dnsperf keeps under way")
    arguments = parser.parse_args()
    need("dnsperf", "knotd", "taskset")
    for mode in ("local", "forward") if arguments.mode == "all" else (arguments.mode,):
        with tempfile.TemporaryDirectory(prefix="bench-dns-") as folder:
            run(mode, Path(folder), arguments)


if __name__ == "__main__":
    main()
