#!/usr/bin/env python3
"""
What a datagram costs to balance: `twistd dcosnet` beside nginx's stream module, in one run.

HAProxy has no UDP. Each balancer runs on CPU 0, its clients and backends on CPU
1, one balancer at a time; the figure is the balancer's own CPU per unit of work
and its ratio to nginx, which keeps a session per client. Requests are DNS:
dnsperf asks knot. A fresh port for each request is what resolvers do; there nginx
runs as people set it up for DNS, with `proxy_responses 1`, which ends the session
with the reply: without it nginx has no room for the next client soon. Bulk is
`iperf3 -u` at a fixed rate. The daemon runs as a user would run it, counters on.
It needs nginx with its stream module, knotd, dnsperf, iperf3, and two CPUs.
"""

import argparse
import contextlib
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from common import cpu_seconds, need, pin, query, start, table
from dns import NAMES, ZONE, knot
from dns import wait_for as wait_for_answer
from l4 import BALANCER, HERE, LOAD, STREAM_MODULE, daemon, iperf3, version, wait_for, write_daemon

ANSWERS, BULK = 6521, 6522
"""Where knot and iperf3's server listen."""
KEPT, ONCE, OURS = "nginx stream", "nginx, one reply", "dcosnet"
FRONTS = {KEPT: (HERE, 6531, 6532), ONCE: (HERE, 6541, 6542), OURS: ("127.11.0.1", 6551, 6552)}
"""Address, port of the requests and port of the bulk of each balancer."""
FRESH = "a fresh flow for each request"
AT_ONCE = 32
"""Fresh ports that ask at a time."""

STREAM = """
load_module {module};
worker_processes 1; pid {dir}/{name}.pid; error_log /dev/null; daemon off;
events {{ worker_connections 20000; }}
stream {{
  proxy_timeout 60s;
  server {{ listen {here}:{front} udp; proxy_pass {here}:{answers}; {once} }}
  server {{ listen {here}:{front_bulk} udp; proxy_pass {here}:{bulk}; }}
  server {{ listen {here}:{front_bulk}; proxy_pass {here}:{bulk}; }}
}}
"""


def write_files(folder: Path) -> None:
    """Write the configuration of every balancer."""
    for name, once in ((KEPT, ""), (ONCE, "proxy_responses 1;")):
        _, front, front_bulk = FRONTS[name]
        (folder / f"{front}.conf").write_text(
            STREAM.format(
                module=STREAM_MODULE, dir=folder, name=front, here=HERE, front=front, front_bulk=front_bulk,
                answers=ANSWERS, bulk=BULK, once=once,
            )
        )  # fmt: skip
    vip, front, front_bulk = FRONTS[OURS]
    rows = [
        ("answers", "udp", ANSWERS, front),
        ("bulk-control", "tcp", BULK, front_bulk),
        ("bulk", "udp", BULK, front_bulk),
    ]
    write_daemon(folder, vip, rows)


def kept(address: str, port: int, queries: Path, seconds: int, window: int) -> float:
    """Requests that were answered to 16 ports; what was lost ends the run, as it would falsify it."""
    argv = ["taskset", "-c", str(LOAD), "dnsperf", "-s", address, "-p", str(port), "-d", str(queries)]
    argv += ["-l", str(seconds), "-c", "16", "-q", str(window)]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    completed, lost = (int(re.search(rf"Queries {what}:\s+(\d+)", out)[1]) for what in ("completed", "lost"))
    if lost > completed / 1000:
        sys.exit(f"dnsperf against {address}:{port} lost {lost} of {completed}")
    return completed


def fresh(address: str, port: int, seconds: int) -> int:
    """Requests that were answered, each to a port of its own."""
    client = [sys.executable, __file__, "--ask", address, str(port), str(seconds)]
    argv = ["taskset", "-c", str(LOAD), *client]
    return int(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout)


def ask(address: str, port: int, seconds: int) -> int:
    """Be the client of `fresh`."""
    request, count, end = query(NAMES[0]), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(AT_ONCE)]
            for client in clients:
                client.settimeout(5)
                client.connect((address, port))
                client.send(request)
            for client in clients:
                client.recv(512)
        count += AT_ONCE
    return count


def bulk(address: str, port: int, seconds: int, rate: str, *options: str) -> float:
    """Datagrams of 1400 bytes that arrived."""
    total = iperf3(address, port, seconds, "-u", "-b", rate, "-l", "1400", *options)["sum"]
    if total["lost_percent"] > 5:
        print(f"  iperf3 lost {total['lost_percent']:.1f} % at {address}:{port} {' '.join(options)}", file=sys.stderr)
    return total["packets"] - total["lost_packets"]


def measure(balancers: dict[str, subprocess.Popen[bytes]], queries: Path, options: argparse.Namespace) -> None:
    """Take turns, and print."""
    seconds, samples = options.seconds, defaultdict(lambda: defaultdict(list))
    cases = {
        f"requests on kept flows, {options.window} under way": lambda at, dns, _: kept(
            at, dns, queries, seconds, options.window
        ),
        "requests on kept flows, one under way": lambda at, dns, _: kept(at, dns, queries, seconds, 1),
        FRESH: lambda at, dns, _: fresh(at, dns, seconds),
        f"{options.rate}bit/s of datagrams to the backend": lambda at, _, port: bulk(at, port, seconds, options.rate),
        f"{options.rate}bit/s of datagrams to the client": lambda at, _, port: bulk(
            at, port, seconds, options.rate, "-R"
        ),
    }
    for _ in range(options.rounds):
        for name, process in balancers.items():
            for title, work in cases.items():
                if name == (KEPT if title == FRESH else ONCE):
                    continue
                before = cpu_seconds(process.pid)
                count = work(*FRONTS[name])
                samples[title][name].append((cpu_seconds(process.pid) - before) / count * 1e6)
    for title, figures in samples.items():
        table(title, "CPU us each", figures, ONCE if title == FRESH else KEPT)


def main() -> None:
    """Start everything, measure, stop everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements (default 3)")
    parser.add_argument("--window", type=int, default=100, help="requests that dnsperf keeps under way (default 100)")
    parser.add_argument("--rate", default="100M", help="of the bulk, bits a second (default 100M)")
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        address, port, seconds = options.ask
        print(ask(address, int(port), int(seconds)))
        return
    need("nginx", "knotd", "dnsperf", "iperf3", "taskset")
    print(version("nginx", "-v"), version("knotd", "-V"), f"Python {platform.python_version()}", sep="\n")
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="bench-l4-udp-") as name:
        folder = Path(name)
        write_files(folder)
        queries = folder / "queries"
        queries.write_text("".join(f"{one} A\n" for one in NAMES))
        try:
            running.append(start(knot(folder, ANSWERS, NAMES, ZONE), LOAD))
            running.append(start(["iperf3", "-s", "-B", HERE, "-p", str(BULK)], LOAD))
            balancers = {
                one: start(["nginx", "-c", str(folder / f"{FRONTS[one][1]}.conf")], BALANCER) for one in (KEPT, ONCE)
            }
            running += balancers.values()
            balancers[OURS] = daemon(folder)
            running.append(balancers[OURS])
            wait_for_answer(ANSWERS, NAMES[-1], running[0])
            for process, (address, _dns, port) in zip(balancers.values(), FRONTS.values(), strict=True):
                wait_for(address, port)
                pin(process.pid, BALANCER)
            measure(balancers, queries, options)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(20)


if __name__ == "__main__":
    main()
