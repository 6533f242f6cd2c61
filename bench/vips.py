"""
How much many VIPs cost: the start, the memory, and one change of the table.

The part `l4lb` as the daemon has it, on 127/8, without a store before it. A
change is that of all backends of one VIP, and its time runs from the published
table to the moment when the listener uses it: by the clock in ms, the median and
the slowest. All else is CPU time, the start in s. Each size is measured in a
process of its own.

    python bench/vips.py [--vips 1000 10000] [--changes 50]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

BACKENDS = 10
FIRST_PORT = 20000
WARM = 5


def main() -> None:
    """Measure each size, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vips", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        print(json.dumps(measure(options.inside, options.changes)))
        return
    heads = "VIPs", "start", "KiB each", "change", "slowest", "its CPU", "most CPU", "new VIP", "VIP gone", "full round"
    print("  ".join(f"{head:>9}" for head in heads))
    for vips in options.vips:
        command = [sys.executable, __file__, "--inside", str(vips), "--changes", str(options.changes)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print("  ".join(f"{value:>{max(9, len(head))}}" for head, value in zip(heads, found, strict=True)))


def measure(count: int, changes: int) -> list[float]:
    """One row of the table."""
    from twisted.internet import reactor

    from dcosnet.io.turns import Turns
    from dcosnet.l4lb.plugin import Settings, make_part
    from dcosnet.model.addressing import parse_range
    from dcosnet.model.cell import Cell
    from dcosnet.model.net import Protocol
    from dcosnet.model.node import Node
    from dcosnet.model.stamp import Stamp
    from dcosnet.model.vip import Backend, Vip, VipKey

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        sys.exit(f"{count} VIPs take as many descriptors, and the limit is {hard}")
    home = ip_address("127.0.0.1")
    later = Turns(reactor).later
    vips: dict[str, Vip] = {}

    def vip(number: int, first: int = 0) -> Vip:
        key = VipKey(Protocol.TCP, FIRST_PORT, name=f"/web{number}", framework="shop")
        backends = tuple(Backend(home, 1024 + first + one, home) for one in range(BACKENDS))
        return Vip(key, backends, Stamp(number + 1, 0, "n"))

    class Views:
        snapshot = Cell(None, later)
        vips: Any
        unsynced: Any = Cell(None, later)

    views = Views()
    views.vips = Cell(vips, later)

    class Toolbox:
        rng, node, state_dir = Random(1), Node("n", home), Path("/nonexistent")

        def __init__(self) -> None:
            self.reactor, self.later = reactor, later

        def __getitem__(self, _interface: object) -> Views:
            return views

    part = make_part(Settings(named_vips=(parse_range("127.11.0.0-127.11.255.254"),)), Toolbox())  # type: ignore[arg-type]
    balancer: Any = part.service
    balancer.startService()

    def until(holds: Callable[[], bool]) -> tuple[float, float]:
        """Turn the reactor until it holds: seconds by the clock, and of CPU."""
        began, used = time.perf_counter(), time.process_time()
        while not holds():
            reactor.iterate(0)  # type: ignore[attr-defined]  # of the class
        return time.perf_counter() - began, time.process_time() - used

    reactor.startRunning()  # type: ignore[attr-defined]
    until(lambda: balancer.not_ready() is None)
    before = memory()
    vips.update((str(one.key), one) for one in map(vip, range(count)))
    views.vips.publish(vips, frozenset(vips))
    _, start = until(lambda: len(balancer.applied.value) == count)
    grown = memory() - before

    homes = {str(service.vip): listener for listener, service in balancer.applied.value.items()}
    took, used, came, gone = [], [], [], []
    for number in range(-WARM, changes):
        until(lambda: balancer.reconciler.loop.due() is not None)
        one = vip(number % count, first=number + WARM + 1)
        name = str(one.key)
        vips[name] = one
        views.vips.publish(vips, frozenset({name}))
        listener = homes[name]
        clock, cpu = until(lambda one=one, listener=listener: balancer.applied.value[listener].backends == one.backends)
        if number >= 0:
            took.append(clock)
            used.append(cpu)
    for number in range(changes):
        until(lambda: balancer.reconciler.loop.due() is not None)
        one = vip(count + number)
        name = str(one.key)
        vips[name] = one
        views.vips.publish(vips, frozenset({name}))
        came.append(until(lambda: len(balancer.applied.value) == count + 1)[1])
        del vips[name]
        views.vips.publish(vips, frozenset({name}))
        gone.append(until(lambda: len(balancer.applied.value) == count)[1])
    rounds = []
    for _ in range(5):
        until(lambda: balancer.reconciler.loop.due() is not None)
        goal = balancer.reconciler.rounds + 1
        balancer.reconciler.wake()
        rounds.append(until(lambda goal=goal: balancer.reconciler.rounds == goal)[1])
    milliseconds = [
        statistics.median(took),
        max(took),
        statistics.median(used),
        max(used),
        *map(statistics.median, (came, gone, rounds)),
    ]
    return [count, round(start, 2), round(grown / 1024 / count, 1), *(round(each * 1e3, 2) for each in milliseconds)]


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
