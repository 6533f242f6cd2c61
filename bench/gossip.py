#!/usr/bin/env python3
"""
What gossip reaches in the simulator, row by row, beside models of memberlist, SWIM and Lashup.

Times are simulated, so they are the same on every machine; what differs is how
long it takes to find them out: some minutes for 10 and 100 nodes, an hour or
more for 1000. `--nodes`, `--seeds` and `--rows` choose, and `--alone` leaves out
the models. A row is reached or missed against the bound that the design set.

Each scenario is played in a child of the process that has the cluster at rest,
so that all of them together cost one such cluster for each seed. Of more than
100 nodes it is made and not started, but for the row that is about starting;
some scenarios are shorter there, and say so.
"""

import argparse
import gc
import multiprocessing
import resource
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from typing import TypeVar

import attrs

from dcosnet.sim import measure
from dcosnet.sim.lashup import Lashup, ping_timeout
from dcosnet.sim.measure import percentile
from dcosnet.sim.memberlist import Memberlist, Swim
from dcosnet.sim.peer import Peers
from dcosnet.sim.simulation import NotReachedError, Simulation


@attrs.frozen
class Figure:
    """One figure of a row."""

    row: str
    what: str
    value: float
    unit: str
    bound: float | None = None
    """None for what is there to compare with."""

    def __str__(self) -> str:
        verdict = "" if self.bound is None else "reached" if self.value <= self.bound else "MISSED"
        bound = "" if self.bound is None else f"{self.bound:>10.4g}"
        return f"  {self.row:<4} {self.what:<52} {self.value:>10.4g} {self.unit:<6} {bound:>10} {verdict}"


def bound(count: int, *of: float) -> float:
    """The bound for so many nodes, of those for 10, 100 and 1000."""
    return of[0 if count <= 10 else 1 if count <= 100 else -1]


T = TypeVar("T")

_processes = multiprocessing.get_context("fork")

Rows = Callable[[int, list[int]], list[Figure]]


@lru_cache(maxsize=16)
def _settled(seed: int, count: int) -> Simulation:
    cluster = measure.settled(seed, count)
    gc.collect()
    gc.freeze()  # else each child would look at all of it, and so have a copy of it
    return cluster


def play(seed: int, count: int, scenario: Callable[[Simulation], T]) -> T:
    """What a scenario finds with a cluster at rest, which stays so for the next one."""
    cluster = _settled(seed, count)
    here, there = _processes.Pipe(duplex=False)
    child = _processes.Process(target=_play, args=(scenario, cluster, there))
    child.start()
    there.close()
    try:
        found: T | NotReachedError = here.recv()
    finally:
        child.join()
    if isinstance(found, NotReachedError):
        raise found
    return found


def _play(scenario: Callable[[Simulation], T], cluster: Simulation, there: Connection) -> None:
    try:
        there.send(scenario(cluster))
    except NotReachedError as error:
        there.send(error)


def models(*makes: type) -> Sequence[type]:
    """Whom to measure beside."""
    return () if ARGUMENTS.alone else makes


def spread(count: int, seeds: list[int]) -> list[Figure]:
    """A1, A2, A4, A5."""
    found = [one for seed in seeds for one in play(seed, count, lambda it: [measure.spread(it) for _ in range(20)])]
    quiet = [play(seed, count, lambda it: measure.idle(it, 60.0 if count <= 100 else 20.0)) for seed in seeds]
    others = {
        make.__name__: max(_at_rest(seed, count, make).idle(320.0 if make is Lashup else 60.0) for seed in seeds[:2])
        for make in models(Memberlist, Lashup)
    }
    return [
        Figure("A1", "a write of 1 KiB to all, p99", percentile([one.seconds for one in found], 0.99), "s", bound(count, 0.05, 0.1, 0.25)),
        Figure("A2", "hops, most", max(one.hops for one in found), "", bound(count, 3, 5, 8)),
        Figure("A4", "sent by a node at rest", max(quiet), "B/s", bound(count, 400, 550)),
        *(Figure("A4", f"the same, {name}", value, "B/s") for name, value in others.items()),
        Figure("A5", "octets for each octet and node, most", max(one.overhead for one in found), ""),
    ]  # fmt: skip


def losses(count: int, seeds: list[int]) -> list[Figure]:
    """A6, A7, A8, A19."""
    killed, silent = (
        [one for seed in seeds for one in play(seed, count, partial(_losses, how=how))]
        for how in (Simulation.kill, Simulation.stop)
    )
    quick, slow = [one.unreachable for one in killed], [one.unreachable for one in silent]
    dead = [one.dead for one in killed + silent]
    figures = [
        Figure("A6", "killed, unreachable for 99 %, p50", percentile(quick, 0.5), "s", bound(count, 0.1, 0.15, 0.2)),
        Figure("A6", "the same, p99", percentile(quick, 0.99), "s", bound(count, 0.3, 0.5, 0.7)),
        Figure("A7", "silent, unreachable for 99 %, p50", percentile(slow, 0.5), "s", bound(count, 1.3, 1.4, 1.5)),
        Figure("A7", "the same, p99", percentile(slow, 0.99), "s", bound(count, 2.0, 2.2, 2.5)),
        Figure("A8", "dead for 99 %, p99", percentile(dead, 0.99), "s", bound(count, 8, 8, 9)),
        Figure("A19", "leases gone after the first verdict of death", max(one.leases for one in killed + silent), "s", bound(count, 1, 1, 2)),
    ]  # fmt: skip
    for make in models(Memberlist, Lashup):
        for row, how in (("A6", Peers.kill), ("A7", Peers.stop)):
            times = [measure.lose_peer(_at_rest(seed, count, make), how) for seed in seeds]
            figures.append(Figure(row, f"{how.__name__}, gone for 99 %, median, {make.__name__}", percentile(times, 0.5), "s"))  # fmt: skip
    return [*figures, Figure("A7", "timeout of one ping, Lashup's source", ping_timeout(count), "s")]


def _losses(cluster: Simulation, how: Callable[[Simulation, str], None]) -> Sequence[measure.Loss]:
    return [measure.lose(cluster, how) for _ in range(3)]


def slander(count: int, seeds: list[int]) -> list[Figure]:
    """A9, A10."""
    seconds = 600.0 if count <= 10 else 120.0 if count <= 100 else 30.0
    figures = []
    for how, of_peers in ((Simulation.pause, Peers.pause), (Simulation.stall, Peers.stall)):
        ours = [play(seed, count, partial(measure.ailing, seconds=seconds, ail=how)) for seed in seeds]
        others = {
            make: sum(measure.ailing_peers(_at_rest(seed, count, make), seconds, of_peers) for seed in seeds)
            for make in models(Swim, Memberlist)
        }
        name, swim = how.__name__, others.get(Swim)
        gone = sum(one.unreachable for one in ours)
        figures += [
            Figure(
                "A9", f"32 % {name}, {seconds:g} s: well nodes dead for well ones", sum(one.dead for one in ours), "", 0
            ),
            Figure("A10", "the same, unreachable", gone, "", None if swim is None else swim / 100),
            *(Figure("A10", f"the same, {make.__name__}", value, "") for make, value in others.items()),
        ]
    return figures


def one_way(count: int, seeds: list[int]) -> list[Figure]:
    """A11."""
    figures = []
    ways = {
        "hears and is not heard": Simulation.mute,
        "is heard and does not hear": Simulation.deafen,
        "loses 80 % of what it sends": lambda cluster, name: cluster.lose(name, 0.8),
    }
    for what, how in ways.items():
        found = [play(seed, count, partial(measure.one_way, break_it=how)) for seed in seeds]
        figures += [
            Figure("A11", f"{what}: gone for all", max(one.seconds for one in found), "s", bound(count, 20, 20, 30)),
            Figure("A11", f"{what}: no more changes of mind", max(one.settled for one in found), "s", bound(count, 20, 20, 30)),
            Figure("A11", f"{what}: others gone", max(one.slandered for one in found), "", 0),
        ]  # fmt: skip
    return figures


def halves(count: int, seeds: list[int]) -> list[Figure]:
    """A12."""
    seconds = 600.0 if count <= 100 else 60.0
    took = [play(seed, count, lambda it: measure.split(it, seconds)) for seed in seeds]
    figures = [Figure("A12", f"halves apart for {seconds:g} s, one again, p99", percentile(took, 0.99), "s", bound(count, 5, 8, 15))]  # fmt: skip
    for make in models(Memberlist, Lashup):
        others = [measure.split_peers(_at_rest(seed, count, make), seconds) for seed in seeds]
        figures.append(Figure("A12", f"the same, members only, {make.__name__} (900: never)", max(others), "s"))
    return figures


def starts(count: int, seeds: list[int]) -> list[Figure]:
    """A14."""
    took = [measure.mass_start(seed, count)[1] for seed in seeds]
    return [Figure("A14", "all start within 10 s, all see all", max(took), "s", bound(count, 5, 10, 20))]


def durability(count: int, seeds: list[int]) -> list[Figure]:
    """A15, A16, with ten nodes at the most."""
    nodes = min(count, 10)
    crashed = [measure.crashes(seed, nodes, ARGUMENTS.steps) for seed in seeds]
    wiped = [measure.wipes(seed, nodes, max(20, ARGUMENTS.steps // 20)) for seed in seeds]
    return [
        Figure("A15", f"lost of {sum(one.acknowledged for one in crashed)} acknowledged, in {sum(one.steps for one in crashed)} steps", sum(one.lost for one in crashed), "", 0),
        Figure("A16", f"lost of {sum(one.acknowledged for one in wiped)} acknowledged, disks wiped", sum(one.lost for one in wiped), "", 0),
    ]  # fmt: skip


def repairs(count: int, seeds: list[int]) -> list[Figure]:
    """A17."""
    keys = ARGUMENTS.keys if count <= 100 else min(2_000, ARGUMENTS.keys)
    found = [play(seed, count, lambda it: measure.repair(it, keys, 10)) for seed in seeds]
    what = f"10 of {keys} keys missed"
    return [
        Figure("A17", f"{what}: repaired for", max(one.octets for one in found) / 1024, "KiB", 64),
        Figure("A17", f"{what}: repaired in", max(one.seconds for one in found), "s", 4),
    ]


def readers(count: int, seeds: list[int]) -> list[Figure]:
    """A18."""
    writes = 100 if count <= 100 else 10
    found = [play(seed, count, lambda it: measure.slow_reader(it, writes=writes)) for seed in seeds]
    return [
        Figure("A18", "kept for a reader of 1 KB/s", max(one.kept for one in found) / 1024, "KiB", 4096),
        Figure("A18", "others' writes take longer by", 100 * max(one.seconds / one.before - 1 for one in found), "%", 10),
    ]  # fmt: skip


ROWS: dict[str, Rows] = {
    "spread": spread,
    "losses": losses,
    "slander": slander,
    "oneway": one_way,
    "halves": halves,
    "starts": starts,
    "durability": durability,
    "repairs": repairs,
    "readers": readers,
}


def _at_rest(seed: int, count: int, make: type) -> Peers:
    cluster = Peers(seed, count, make)
    cluster.run(measure.SETTLED)
    return cluster


def main() -> None:
    """Measure, and print."""
    for count in ARGUMENTS.nodes:
        seeds = list(range(1, 1 + (ARGUMENTS.seeds or {10: 10, 100: 2}.get(count, 1))))
        print(f"\n{count} nodes, {len(seeds)} seeds")
        for name in ARGUMENTS.rows:
            began = _cpu()
            try:
                for figure in ROWS[name](count, seeds):
                    print(figure, flush=True)
            except NotReachedError as error:
                print(f"  {name}: MISSED: {error}", flush=True)
            print(f"       ({name} took {_cpu() - began:.0f} s of CPU)", flush=True)


def _cpu() -> float:
    """Seconds, of this process and its children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100], help="how many (10 100)")
    parser.add_argument("--seeds", type=int, help="how many (10 for 10 nodes, 2 for 100, else 1)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which (all)")
    parser.add_argument("--alone", action="store_true", help="without the models of memberlist, SWIM and Lashup")
    parser.add_argument("--steps", type=int, default=1000, help="of A15, for each seed (1000)")
    parser.add_argument("--keys", type=int, default=10_000, help="of A17 (10000; the design says 100000)")
    ARGUMENTS = parser.parse_args()
    main()
