"""
How soon real processes know that one of them is gone, and what they cost while nothing happens.

Sixteen `twistd dcosnet` on loopback with TLS: one is killed, one stands still
(SIGSTOP: its connections stay, and nothing answers), and each other node tells
since when it knows. Beside them, if `serf` is installed, eight agents of it with
their own defaults, asked in the same way. Seconds are of a machine that does
nothing else; the load is printed, so that it can be seen whether it did.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import cpu_seconds

# In the place of this folder, where dns.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")

from daemon import vip_net  # noqa: E402 - the tests' folder is on the path by now
from fleet import Fleet  # noqa: E402 - as above

SIZE, SERF_SIZE = 16, 8
PATIENCE = 90.0


def load():
    return "load of the machine: {:.1f} {:.1f} {:.1f}, processors: {}".format(*os.getloadavg(), os.cpu_count())


def row(name, samples, target=""):
    """A line of the table; of few samples the 99th percentile is the last."""
    samples = sorted(samples)
    p99 = samples[min(len(samples) - 1, int(len(samples) * 0.99))]
    print(f"  {name:<52}{statistics.median(samples):8.2f}{p99:8.2f}{samples[-1]:8.2f}   {target}")


def known_since(nodes, name, state, began):
    """For each node, how many seconds after `began` it came to see a member so."""
    found = []
    for node in nodes:
        deadline = time.monotonic() + PATIENCE
        while True:
            told = node.members()[name]
            if told["state"] == state:
                found.append(time.monotonic() - told["age_seconds"] - began)
                break
            if time.monotonic() > deadline:
                sys.exit(f"{node.name} never saw {name} {state}")
            time.sleep(0.01)
    return found


def idle(fleet, seconds):
    pids = [node.process.pid for node in fleet]
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(seconds)
    percent = [(cpu_seconds(pid) - one) / seconds * 100 for pid, one in zip(pids, before, strict=True)]
    resident = [
        int(line.split()[1]) / 1024
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return resident, percent


def ours(fleet, kills, stops, seconds):
    fleet.mend()
    print(f"\ndcosnet, {SIZE} processes; {load()}")
    print(f"  {'':<52}{'p50':>8}{'p99':>8}{'most':>8}")
    resident, percent = idle(fleet, seconds)
    row("A21 resident memory of a process, MB", resident, "60")
    row(f"A21 processor of a process over {seconds} s of idling, %", percent, "0.5")
    figures = {"killed": ([], [], []), "silent": ([], [], [])}
    for nth in range(kills + stops):
        # Each is another one, since who comes and goes is held back longer each time.
        victim = fleet[3 + nth]
        others = fleet.others(victim)
        how = "killed" if nth < kills else "silent"
        each, last, dead = figures[how]
        began = time.monotonic()
        if how == "killed":
            victim.kill()
        else:
            victim.pause_process()
        since = known_since(others, victim.name, "unreachable", began)
        each += since
        last.append(max(since))
        dead.append(max(known_since(others, victim.name, "dead", began)))
        fleet.mend()
        # Who has just lost all its links, as one that stood still has, is slow to call others dead for a while.
        time.sleep(5)
    for how, number, each_target, dead_target in (
        ("killed", "A6", "0.1 / 0.3", "8"),
        ("silent", "A7", "1.3 / 2.0", "8"),
    ):
        each, last, dead = figures[how]
        row(f"{number} {how}: unreachable, {len(each)} times a node", each, each_target)
        row(f"{number} {how}: unreachable, the last node of {len(last)} times", last)
        row(f"A8 {how}: dead, the last node of {len(dead)} times", dead, dead_target)
    print(f"  {load()}")


class Serf:
    """An agent with the defaults of its LAN profile."""

    def __init__(self, program, number, net):
        self.program, self.name, self.address = program, f"serf-{number}", f"{net}.{number}"
        self.process = None

    def start(self, join):
        self.process = subprocess.Popen(
            [self.program, "agent", f"-node={self.name}", f"-bind={self.address}:7946",
             f"-rpc-addr={self.address}:7373", f"-retry-join={join}:7946", "-retry-interval=1s"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def states(self):
        done = subprocess.run(
            [self.program, "members", "-format=json", f"-rpc-addr={self.address}:7373"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            return {}
        return {member["name"]: member["status"] for member in json.loads(done.stdout)["members"]}


def until(agents, holds, why):
    """Ask all in turn until each has said so once."""
    waiting, deadline = list(agents), time.monotonic() + PATIENCE
    while waiting:
        waiting = [agent for agent in waiting if not holds(agent.states())]
        if time.monotonic() > deadline:
            sys.exit(f"serf: never {why}")


def theirs(program, rounds):
    net = vip_net()
    agents = [Serf(program, number, net) for number in range(1, SERF_SIZE + 1)]
    whole = dict.fromkeys((agent.name for agent in agents), "alive")
    try:
        for agent in agents:
            agent.start(agents[0].address)
        until(agents, lambda states: states == whole, "all alive")
        figures = {"killed": [], "silent": []}
        for nth in range(2 * rounds):
            victim = agents[1 + nth % (SERF_SIZE - 1)]
            others = [agent for agent in agents if agent is not victim]
            how = "killed" if nth < rounds else "silent"
            began = time.monotonic()
            victim.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            until(others, lambda states, name=victim.name: states.get(name) == "failed", f"{victim.name} failed")
            figures[how].append(time.monotonic() - began)
            if how == "killed":
                victim.process.wait()
                victim.start(agents[0].address)
            else:
                victim.process.send_signal(signal.SIGCONT)
            until(agents, lambda states: states == whole, "all alive again")
    finally:
        for agent in agents:
            if agent.process is not None:
                agent.process.kill()
                agent.process.wait()
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    print(f"\nserf, which calls itself {version}, {SERF_SIZE} agents; {load()}")
    print(f"  {'':<52}{'p50':>8}{'p99':>8}{'most':>8}")
    for how, samples in figures.items():
        row(f"{how}: failed, the last agent of {len(samples)} times", samples)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--stops", type=int, default=4)
    parser.add_argument("--idle", type=int, default=20, help="seconds of idling")
    parser.add_argument("--rounds", type=int, default=3, help="times that an agent of serf is killed, and stopped")
    options = parser.parse_args()
    if options.kills + options.stops > SIZE - 3:
        sys.exit(f"{SIZE - 3} nodes at most are there to be killed and stopped, one time each")
    with tempfile.TemporaryDirectory() as folder:
        net = vip_net()
        fleet = Fleet(Path(folder), {f"{net}.{number}": () for number in range(1, SIZE + 1)})
        try:
            ours(fleet, options.kills, options.stops, options.idle)
        finally:
            fleet.close()
    program = shutil.which("serf")
    if program is None:
        print("\nserf is not installed, so there is nothing to compare with")
        return
    theirs(program, options.rounds)


if __name__ == "__main__":
    main()
