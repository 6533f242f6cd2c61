"""
What the cluster is measured by: each function plays a scenario and gives figures.

Times are simulated seconds, so that they are the same on every machine. The
bounds that go with them are in `bench/gossip.py` and in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import attrs

from dcosnet.model.delta import Known
from dcosnet.model.member import MemberState
from dcosnet.sim.node import Node, Written
from dcosnet.sim.peer import Peer, Peers
from dcosnet.sim.simulation import SEEDS, Simulation

GONE = (MemberState.UNREACHABLE, MemberState.DEAD)
REPAIRING = ("digest", "frontier", "have", "pull", "change", "piece", "nothing")
"""Frames that bring together what differs."""
SETTLED = 15.0
"""Seconds after a start until a cluster is at rest: links that nobody wants are closed by then."""


def percentile(figures: Sequence[float], share: float) -> float:
    """The smallest figure that so large a share of them does not exceed."""
    ordered = sorted(figures)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


STARTED_MOST = 100
"""Clusters of more nodes are not started to be measured, but made: nothing differs at rest."""


def settled(seed: int, count: int) -> Simulation:
    """A cluster at rest."""
    if count > STARTED_MOST:
        return made(seed, count)
    cluster = Simulation(seed)
    cluster.start(count, within=1.0)
    cluster.run_until(cluster.whole, limit=60.0)
    cluster.run(SETTLED)
    return cluster


def made(seed: int, count: int) -> Simulation:
    """A cluster at rest whose start was not played: each begins alone, for its disk, and knows all others then."""
    cluster = Simulation(seed)
    nodes = [cluster.add(f"a{number}") for number in range(1, 1 + count)]
    for node in nodes:
        node.seeds = ()
        node.boot()
    cluster.run(0.0)
    cluster.run_until(lambda: not any(node.core.recovering for node in nodes), 60.0, step=1.0)
    cluster.run(1.0)
    for node in nodes:
        node.seeds = tuple(seed.endpoint for seed in nodes[:SEEDS])
        cluster.restart(node.name)
    cluster.run(0.0)
    cluster.acquaint()
    cluster.run_until(cluster.whole, limit=60.0)
    cluster.run(SETTLED)
    return cluster


def pick(cluster: Simulation) -> str:
    """A node that runs, by chance."""
    return cluster.rng.choice([node.name for node in cluster.up])


# A1, A2, A5


@attrs.frozen
class Spread:
    """A write: seconds until all knew it, the most hops, and octets on all links for each octet and node."""

    seconds: float
    hops: int
    overhead: float


def spread(cluster: Simulation, limit: float = 10.0) -> Spread:
    """One write of a kibibyte at some node."""
    name = pick(cluster)
    hops = {name: 0}
    came: dict[str, float] = {}

    def arrival(observer: str, owner: str, known: Known, source: str | None) -> None:
        if owner == name and written.known is not None and known >= written.known and observer not in came:
            came[observer] = cluster.now
            if source is not None:
                hops[observer] = hops[source] + 1

    cluster.arrivals.append(arrival)
    before = cluster.sent()
    written = cluster.write(name, {"measured": cluster.rng.randbytes(1024)})
    cluster.run_until(cluster.knows(written), limit, step=0.001)
    cluster.run(0.05)
    cluster.arrivals.remove(arrival)
    octets = cluster.sent() - before
    return Spread(max(came.values()) - written.begun, max(hops.values()), octets / 1024 / len(cluster.up))


# A4


def idle(cluster: Simulation, seconds: float = 60.0) -> float:
    """Octets a second that a node at rest sends, TLS's included."""
    before = cluster.sent()
    cluster.run(seconds)
    return (cluster.sent() - before) / seconds / len(cluster.up)


# A6, A7, A8, A19


@attrs.frozen
class Loss:
    """Seconds after a node was gone until 99 % of the others said so, said dead, and until its leases were gone."""

    unreachable: float
    dead: float
    leases: float
    """After the first verdict of death."""


def lose(cluster: Simulation, how: Callable[[Simulation, str], None], limit: float = 60.0) -> Loss:
    """Let a node go in some way, and wait until it is dead everywhere. It is started again after that."""
    name = pick(cluster)
    cluster.write(name, {f"lease/{name}": b"mine"})
    cluster.run(2.0)
    began = cluster.now
    moments: dict[MemberState, list[float]] = {state: [] for state in MemberState}

    def verdict(_: str, member: str, state: MemberState) -> None:
        if member == name:
            moments[state].append(cluster.now - began)

    cluster.verdicts.append(verdict)
    how(cluster, name)
    cluster.run_until(lambda: cluster.sees(name, MemberState.DEAD), limit, step=0.01)
    leases = cluster.run_until(
        lambda: not any(node.store.get(f"lease/{name}") for node in cluster.up), limit, step=0.001
    )
    cluster.verdicts.remove(verdict)
    dead = moments[MemberState.DEAD]
    loss = Loss(
        percentile(moments[MemberState.UNREACHABLE], 0.99),
        percentile(dead, 0.99),
        max(dead) - min(dead) + leases,
    )
    cluster.restart(name)
    cluster.run_until(cluster.whole, limit)
    cluster.run(1.0)
    return loss


# A9, A10


@attrs.frozen
class Slander:
    """What was said of nodes that were never ill, by those who were not either."""

    dead: int
    unreachable: int
    by_ill: int
    """What those said who were ill: from where they stood it was so."""
    of_ill: int
    """Verdicts on the ill, for comparison."""


def ailing(
    cluster: Simulation, seconds: float, ail: Callable[[Simulation, str, float], None], share: float = 0.32
) -> Slander:
    """
    A share of the nodes is ill again and again, for 2 to 20 s each time, and well for 30 ms to 10 s between.

    `ail` is what ails them: `Simulation.pause`, or `Simulation.stall` as in the measurements of Lifeguard.
    """
    rng = cluster.rng
    names = [node.name for node in cluster.up]
    ill = set(rng.sample(names, round(share * len(names))))
    counts = dict.fromkeys(MemberState, 0)
    by_ill = of_ill = 0

    def verdict(observer: str, member: str, state: MemberState) -> None:
        nonlocal by_ill, of_ill
        if state in GONE and member in ill:
            of_ill += 1
        elif state in GONE and observer in ill:
            by_ill += 1
        elif member not in ill:
            counts[state] += 1

    def again(name: str) -> None:
        if cluster.now < end:
            length = rng.uniform(2.0, 20.0)
            ail(cluster, name, length)
            cluster.clock.at(cluster.now + length + _between(rng), again, name)

    end = cluster.now + seconds
    for name in sorted(ill):
        cluster.clock.at(cluster.now + rng.uniform(0.0, 20.0), again, name)
    cluster.verdicts.append(verdict)
    cluster.run(seconds)
    cluster.verdicts.remove(verdict)
    return Slander(counts[MemberState.DEAD], counts[MemberState.UNREACHABLE], by_ill, of_ill)


def _between(rng: Random) -> float:
    # The short runs are the bad ones: enough to suspect others, too little to hear them.
    return float(10.0 ** rng.uniform(-1.5, 1.0))


# A11


@attrs.frozen
class OneWay:
    """What healthy nodes thought of nodes that send in vain, and of each other."""

    seconds: float
    """Until the sick were gone for all of them."""
    settled: float
    """Until nobody changed his mind any more."""
    slandered: int
    """How many healthy ones were gone for some healthy one at some time."""


def one_way(cluster: Simulation, break_it: Callable[[Simulation, str], None], watched: float = 60.0) -> OneWay:
    """One node in a hundred sends in vain."""
    names = [node.name for node in cluster.up]
    sick = set(cluster.rng.sample(names, max(1, len(names) // 100)))
    healthy = [node for node in cluster.up if node.name not in sick]
    began = last = cluster.now
    slandered: set[str] = set()

    def verdict(observer: str, member: str, state: MemberState) -> None:
        nonlocal last
        if observer in sick:
            return
        if member in sick:
            # That it goes from unreachable to dead is no other opinion.
            last = last if state is MemberState.DEAD else cluster.now
        elif state in GONE:
            slandered.add(member)

    def removed() -> bool:
        return all(node.states.get(name) in GONE for node in healthy for name in sick)

    cluster.verdicts.append(verdict)
    for name in sorted(sick):
        break_it(cluster, name)
    seconds = cluster.run_until(removed, watched, step=0.01)
    cluster.run(watched - seconds)
    cluster.verdicts.remove(verdict)
    return OneWay(seconds, last - began, len(slandered))


# A12


def split(cluster: Simulation, seconds: float, limit: float = 120.0) -> float:
    """Two halves apart for so long, with a write each in each; gives how long they take to be one again."""
    names = [node.name for node in cluster.up]
    cluster.rng.shuffle(names)
    half = len(names) // 2
    cluster.partition(names[:half], names[half:])
    cluster.run(seconds / 2)
    writes = [cluster.write(side[0], {f"split/{side[0]}": b"here"}) for side in (names[:half], names[half:])]
    cluster.run(seconds / 2)
    cluster.heal()

    def one_again() -> bool:
        return cluster.whole() and all(cluster.knows(written)() for written in writes) and cluster.equal()

    return cluster.run_until(one_again, limit, step=0.02)


# A14


def mass_start(seed: int, count: int, within: float = 10.0, limit: float = 120.0) -> tuple[Simulation, float]:
    """All start within some seconds; gives the cluster, and how long after the last of them all see all."""
    cluster = Simulation(seed)
    cluster.start(count, within=within)
    cluster.run_until(lambda: all(node.running for node in cluster.nodes.values()), within, step=0.01)
    return cluster, cluster.run_until(cluster.whole, limit, step=0.01)


# A17


@attrs.frozen
class Repair:
    """Octets of the exchange of digests and keys on all links, and seconds, until a node had what it had missed."""

    octets: int
    seconds: float


def repair(cluster: Simulation, keys: int, missed: int, limit: float = 60.0) -> Repair:
    """Of many keys, of ten nodes at the most, some are written while one node is cut off, too shortly to be dead."""
    names = [node.name for node in cluster.up]
    away, writers = names[-1], names[:-1][:10]
    mine = keys // len(writers)
    for name in writers:
        for start in range(0, mine, 1000):
            cluster.write(name, {f"{name}/{n}": b"value" for n in range(start, min(mine, start + 1000))})
    cluster.run(1.0)
    cluster.run_until(cluster.equal, 600.0, step=1.0)
    cluster.partition([away])
    cluster.run(2.5)
    writes = [
        cluster.write(writers[n % len(writers)], {f"{writers[n % len(writers)]}/{n % mine}": b"other"})
        for n in range(missed)
    ]
    cluster.run(1.0)
    before = sum(map(_repairing, cluster.up))
    cluster.heal()
    took = cluster.run_until(lambda: cluster.knows(writes[-1])() and cluster.equal(), limit, step=0.01)
    cluster.run(1.0)
    return Repair(sum(map(_repairing, cluster.up)) - before, took)


def _repairing(node: Node) -> int:
    return sum(node.octets_in[kind] for kind in REPAIRING)


# A18


@attrs.frozen
class SlowReader:
    """Octets kept for the slow peer at the most; the median time of a write to all others, before and with it."""

    kept: int
    before: float
    seconds: float


def slow_reader(cluster: Simulation, octets: float = 1024.0, writes: int = 100) -> SlowReader:
    """One node takes in a kilobyte a second, while others write 8 KiB twenty times a second."""
    slow = pick(cluster)
    others = [node for node in cluster.up if node.name != slow]
    kept = 0

    def others_know() -> bool:
        return written.known is not None and all(node.store.known()[written.node] >= written.known for node in others)

    times: dict[bool, list[float]] = {False: [], True: []}
    for slowed in (False, True):
        if slowed:
            cluster.slow(slow, octets)
        for _ in range(writes):
            written = cluster.write(cluster.rng.choice(others).name, {"measured": cluster.rng.randbytes(8192)})
            times[slowed].append(cluster.run_until(others_know, limit=10.0, step=0.0002))
            cluster.run(0.05)
            kept = max(kept, *(node.kept_for(slow) for node in others))
    return SlowReader(kept, percentile(times[False], 0.5), percentile(times[True], 0.5))


# A15, A16


@attrs.frozen
class Durability:
    """Writes that were acknowledged, and how many of them were not there in the end."""

    steps: int
    acknowledged: int
    lost: int


def crashes(seed: int, count: int, steps: int) -> Durability:
    """Durable writes, while nodes lose power or are killed and start again with their disks."""
    return _torment(seed, count, steps, _crash)


def wipes(seed: int, count: int, steps: int) -> Durability:
    """Durable writes, while one node at a time loses its disk right after a write was acknowledged."""
    return _torment(seed, count, steps, _wipe)


def _crash(cluster: Simulation, name: str) -> None:
    # All at once now and then: else a node has from others what its disk has lost.
    names = sorted(cluster.nodes) if cluster.rng.random() < 0.2 else [name]
    how = cluster.rng.choice((Simulation.kill, Simulation.stop))
    for one in names:
        how(cluster, one)
    for one in names:
        cluster.restart(one)


def _wipe(cluster: Simulation, name: str) -> None:
    cluster.stop(name)
    cluster.restart(name, wipe=True)
    # One disk at a time: until it has its own again, no other is lost.
    cluster.run_until(lambda: cluster.whole() and not any(node.core.recovering for node in cluster.up), 60.0)


def _torment(seed: int, count: int, steps: int, harm: Callable[[Simulation, str], None]) -> Durability:
    cluster = settled(seed, count)
    rng = cluster.rng
    last: dict[str, list[Written]] = {}
    for step in range(steps):
        name = rng.choice(sorted(cluster.nodes))
        if cluster.nodes[name].running:
            key = f"{name}/{rng.randrange(3)}"
            written = cluster.write(name, {key: b"%d" % step}, durable=True)
            last.setdefault(key, []).append(written)
            cluster.wait(written, rng.choice((0.001, 0.003, 0.1)))
        if rng.random() < 0.3:
            harm(cluster, name)
    cluster.run(30.0)
    acknowledged, lost = 0, 0
    for key, writes in last.items():
        # The last acknowledged one, or one that was asked for after it.
        done = [n for n, written in enumerate(writes) if written.acknowledged is not None]
        acknowledged += len(done)
        if done:
            allowed = {written.changes[key] for written in writes[done[-1] :]}
            lost += sum((entry := node.store.get(key)) is None or entry.value not in allowed for node in cluster.up)
    return Durability(steps, acknowledged, lost)


# The same of the models


def lose_peer(cluster: Peers, how: Callable[[Peers, Peer], None], limit: float = 200.0) -> float:
    """Seconds until 99 % of the others take a peer for gone."""
    peer = cluster.rng.choice(cluster.up)
    how(cluster, peer)
    return cluster.run_until(lambda: cluster.agree(peer.number, *GONE), limit, step=0.01)


def ailing_peers(cluster: Peers, seconds: float, ail: Callable[[Peers, Peer, float], None], share: float = 0.32) -> int:
    """As `ailing`: how often a peer that was never ill took another such for gone."""
    rng = cluster.rng
    ill = {peer.number for peer in rng.sample(cluster.peers, round(share * len(cluster.peers)))}
    end = cluster.clock.now + seconds

    def again(peer: Peer) -> None:
        if cluster.clock.now < end:
            length = rng.uniform(2.0, 20.0)
            ail(cluster, peer, length)
            cluster.clock.at(cluster.clock.now + length + _between(rng), again, peer)

    for peer in cluster.peers:
        if peer.number in ill:
            cluster.clock.at(cluster.clock.now + rng.uniform(0.0, 20.0), again, peer)
    cluster.run(seconds)
    well = [peer for peer in cluster.peers if peer.number not in ill]
    return sum(peer.losses[other.number] for peer in well for other in well)


def split_peers(cluster: Peers, seconds: float, limit: float = 900.0) -> float:
    """Two halves apart for so long; how long they take to be one again, `limit` if they do not."""
    cluster.run(SETTLED)
    half = len(cluster.peers) // 2
    cluster.part(cluster.peers[:half], cluster.peers[half:])
    cluster.run(seconds)
    cluster.network.heal()
    return cluster.run_until(cluster.whole, limit)
