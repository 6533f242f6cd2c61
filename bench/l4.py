#!/usr/bin/env python3
"""
What a TCP connection costs to balance: `twistd dcosnet` beside HAProxy and nginx, in one run.

Each balancer runs on CPU 0, its clients and backends on CPU 1, one balancer at a
time. The figure is the balancer's own CPU per unit of work, because that
survives a noisy machine; the ratio is to HAProxy in TCP mode. The daemon runs as
a user would run it, counters on, from a configuration written for the occasion.
Besides: how late answers are at a constant rate, and what idle connections hold.
It needs haproxy, nginx with its stream module, wrk and iperf3, and two CPUs.
"""

import argparse
import contextlib
import json
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from common import cpu_seconds, need, pin, processes, start, table

BALANCER, LOAD = 0, 1
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
HERE = "127.0.0.1"
WEB, BULK = (6201, 6202), 6211
"""Where the backends listen."""
FRONTS = {"haproxy": (HERE, 6301, 6311), "nginx stream": (HERE, 6302, 6312), "dcosnet": ("127.11.0.1", 6303, 6313)}
"""Address, web port and bulk port of each balancer."""
RATE, WORKERS = 5000, 50
"""Requests per second, and over how many kept connections, where latency is measured."""
THINK = f"function delay() return math.random({WORKERS * 500 // RATE}, {WORKERS * 1500 // RATE}) end\n"
"""For wrk: milliseconds before each request, whose mean makes the rate."""
IDLE = 8000
DESCRIPTORS = 20000
"""Of each process; a balancer takes two for a connection."""

Samples = defaultdict[str, list[float]]

BACKENDS = """
worker_processes 1; worker_rlimit_nofile {descriptors}; pid {dir}/web.pid; error_log /dev/null; daemon off;
events {{ worker_connections {descriptors}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 10m;
  server {{ {listen} location / {{ return 200 "a small answer\\n"; }} }}
}}
"""
STREAM = """
load_module {module};
worker_processes 1; worker_rlimit_nofile {descriptors}; pid {dir}/stream.pid; error_log /dev/null; daemon off;
events {{ worker_connections {descriptors}; }}
stream {{
  upstream web {{ {web} }}
  upstream bulk {{ server {here}:{bulk}; }}
  server {{ listen {here}:{front_web} backlog=4096; proxy_pass web; }}
  server {{ listen {here}:{front_bulk}; proxy_pass bulk; }}
}}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 8500
  maxpipes 100
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen web
  bind {here}:{front_web}
{web}
listen bulk
  bind {here}:{front_bulk}
  server one {here}:{bulk}
"""
DAEMON = """
[node]
name = "bench"
address = "{here}"
state_dir = "{dir}/state"
[files]
path = "{dir}/services"
[l4lb]
plane = "userspace"
named_vips = ["127.11.0.0-127.11.255.254"]
max_udp_flows = {flows}
"""
SERVICE = """
[[service]]
name = "{name}"
group = "bench"
address = "{here}"
ports = [{{ port = {port}, protocol = "{protocol}", vip = "{vip}" }}]
"""


def write_files(folder: Path) -> None:
    """Write the configuration of every program."""
    _, ha_web, ha_bulk = FRONTS["haproxy"]
    _, ng_web, ng_bulk = FRONTS["nginx stream"]
    vip, our_web, our_bulk = FRONTS["dcosnet"]
    listen = " ".join(f"listen {HERE}:{port} backlog=4096;" for port in WEB)
    (folder / "web.conf").write_text(BACKENDS.format(dir=folder, listen=listen, descriptors=DESCRIPTORS))
    servers = " ".join(f"server {HERE}:{port};" for port in WEB)
    (folder / "stream.conf").write_text(
        STREAM.format(
            module=STREAM_MODULE,
            descriptors=DESCRIPTORS,
            dir=folder,
            here=HERE,
            web=servers,
            bulk=BULK,
            front_web=ng_web,
            front_bulk=ng_bulk,
        )
    )
    servers = "\n".join(f"  server s{port} {HERE}:{port}" for port in WEB)
    (folder / "haproxy.cfg").write_text(
        HAPROXY.format(here=HERE, web=servers, bulk=BULK, front_web=ha_web, front_bulk=ha_bulk)
    )
    rows = [(f"web{port}", "tcp", port, our_web) for port in WEB] + [("bulk", "tcp", BULK, our_bulk)]
    write_daemon(folder, vip, rows, flows=100)


def write_daemon(folder: Path, vip: str, rows: Iterable[tuple[str, str, int, int]], flows: int = 4096) -> None:
    """Write the daemon's configuration, and its services: name, protocol, port, and port of the VIP of each."""
    (folder / "dcosnet.toml").write_text(DAEMON.format(dir=folder, here=HERE, flows=flows))
    (folder / "services").mkdir()
    (folder / "services" / "bench.toml").write_text(
        "".join(
            SERVICE.format(name=name, here=HERE, port=port, protocol=protocol, vip=f"{vip}:{front}")
            for name, protocol, port, front in rows
        )
    )


def daemon(folder: Path) -> subprocess.Popen[bytes]:
    """Start `twistd dcosnet` of this interpreter's environment."""
    twistd = Path(sys.executable).with_name("twistd")
    argv = [str(twistd), "--nodaemon", "--pidfile=", "dcosnet", "-c", str(folder / "dcosnet.toml")]
    return start(argv, BALANCER, cwd=folder)


def wait_for(address: str, port: int, seconds: float = 20) -> None:
    """Return once somebody listens; leave the program with a sentence otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.1)
    sys.exit(f"nobody listens on {address}:{port} after {seconds:.0f} s")


def requests(address: str, port: int, seconds: int, *options: str) -> int:
    """Requests that were answered; errors of any kind end the run, as they would falsify it."""
    argv = ["wrk", "-t1", "-c64", f"-d{seconds}s", *options, f"http://{address}:{port}/"]
    out = subprocess.run(["taskset", "-c", str(LOAD), *argv], capture_output=True, text=True, check=True).stdout
    if "Socket errors" in out or "Non-2xx" in out:
        sys.exit(f"wrk against {address}:{port} saw errors:\n{out}")
    return int(re.search(r"(\d+) requests in", out)[1])


def iperf3(address: str, port: int, seconds: int, *options: str) -> dict[str, Any]:
    """What iperf3 says at the end; its server may still be busy with the client before."""
    argv = ["iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J", *options]
    for _ in range(10):
        done = subprocess.run(["taskset", "-c", str(LOAD), *argv], capture_output=True, text=True, check=False)
        said = json.loads(done.stdout)
        if "busy" not in said.get("error", ""):
            break
        time.sleep(0.5)
    if "error" in said:
        sys.exit(f"iperf3 against {address}:{port}: {said['error']}")
    return said["end"]


def gigabytes(address: str, port: int, seconds: int, *options: str) -> float:
    """What one end of iperf3 received."""
    return float(iperf3(address, port, seconds, *options)["sum_received"]["bytes"]) / 1e9


def percentile(address: str, port: int, seconds: int, script: Path) -> float:
    """The 99th percentile of answers, in milliseconds, with clients that think so long that it makes the rate."""
    argv = ["wrk", "-t1", f"-c{WORKERS}", f"-d{seconds}s", "--latency", "-s", str(script), f"http://{address}:{port}/"]
    out = subprocess.run(["taskset", "-c", str(LOAD), *argv], capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
    if "Socket errors" in out or "Non-2xx" in out or rate < 0.7 * RATE:
        sys.exit(f"wrk against {address}:{port} saw errors, or too few answers:\n{out}")
    amount, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\n", out).groups()
    return float(amount) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def megabytes(pid: int) -> float:
    """What a process tree has in memory."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in processes(pid))
    return pages * resource.getpagesize() / 1e6


def hold(address: str, port: int, count: int) -> list[socket.socket]:
    """So many connections that have had an answer and are idle now."""
    request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    held: list[socket.socket] = []
    for _ in range(count):
        sock = socket.create_connection((address, port), 20)
        sock.sendall(request)
        if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
            sys.exit(f"no answer from {address}:{port} over connection {len(held)}")
        held.append(sock)
    return held


def version(*argv: str) -> str:
    """The first line in which a program says which one it is."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


def measure_cost(balancers: dict[str, subprocess.Popen[bytes]], seconds: int, rounds: int) -> None:
    """Take turns, and print CPU by unit of work."""
    kept: Samples = defaultdict(list)
    opened: Samples = defaultdict(list)
    up: Samples = defaultdict(list)
    down: Samples = defaultdict(list)
    for _ in range(rounds):
        for name, process in balancers.items():
            address, web_port, bulk_port = FRONTS[name]

            def cost(samples: Samples, work: Callable[[], float], unit: float) -> None:
                before = cpu_seconds(process.pid)  # noqa: B023 - called within the round
                amount = work()
                samples[name].append((cpu_seconds(process.pid) - before) / amount * unit)  # noqa: B023

            cost(kept, partial(requests, address, web_port, seconds), 1e6)
            cost(opened, partial(requests, address, web_port, seconds, "-H", "Connection: close"), 1e6)
            cost(up, partial(gigabytes, address, bulk_port, seconds), 1)
            cost(down, partial(gigabytes, address, bulk_port, seconds, "-R"), 1)
    table("small requests on kept connections", "CPU us per request", kept, "haproxy")
    table("connection opened, one request, closed", "CPU us per connection", opened, "haproxy")
    table("bulk to the backend", "CPU s per GB", up, "haproxy")
    table("bulk to the client", "CPU s per GB", down, "haproxy")


def measure_latency(names: Iterable[str], seconds: int, rounds: int) -> None:
    """The same at a constant rate, and without a balancer between."""
    late: Samples = defaultdict(list)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(THINK)
        script.flush()
        for _ in range(rounds):
            late["direct"].append(percentile(HERE, WEB[0], seconds, Path(script.name)))
            for name in names:
                address, web_port, _ = FRONTS[name]
                late[name].append(percentile(address, web_port, seconds, Path(script.name)))
    table(f"99th percentile of the answer at {RATE} requests/s", "ms", late)


def measure_memory(balancers: dict[str, subprocess.Popen[bytes]]) -> None:
    """What each holds for idle connections, over what it held before."""
    grown = {}
    for name, process in balancers.items():
        address, web_port, _ = FRONTS[name]
        before = megabytes(process.pid)
        held = hold(address, web_port, IDLE)
        grown[name] = [megabytes(process.pid) - before]
        for sock in held:
            sock.close()
    table(f"{IDLE} idle connections", "MB over idle", grown)


def main() -> None:
    """Start everything, measure, stop everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements (default 3)")
    options = parser.parse_args()
    need("haproxy", "nginx", "wrk", "iperf3", "taskset")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        sys.exit(f"it needs {DESCRIPTORS} open files: raise the hard limit (ulimit -Hn), which is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    print(version("haproxy", "-v"), version("nginx", "-v"), f"Python {platform.python_version()}", sep="\n")
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="bench-l4-") as name:
        folder = Path(name)
        write_files(folder)
        try:
            running.append(start(["nginx", "-c", str(folder / "web.conf")], LOAD))
            running.append(start(["iperf3", "-s", "-B", HERE, "-p", str(BULK)], LOAD))
            balancers = {
                "haproxy": start(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], BALANCER),
                "nginx stream": start(["nginx", "-c", str(folder / "stream.conf")], BALANCER),
                "dcosnet": daemon(folder),
            }
            running += balancers.values()
            for address, web_port, _bulk_port in FRONTS.values():
                wait_for(address, web_port)
            for process in balancers.values():
                pin(process.pid, BALANCER)
            measure_memory(balancers)
            measure_latency(balancers, options.seconds, options.rounds)
            measure_cost(balancers, options.seconds, options.rounds)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(20)


if __name__ == "__main__":
    main()
