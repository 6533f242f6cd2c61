"""
A cluster to be played with: start it, break it, and look what it makes of that.

::

    cluster = Simulation(seed=1)
    cluster.start(10)
    cluster.run_until(cluster.whole, limit=10)
    cluster.kill("a3")
    cluster.run_until(lambda: cluster.sees("a3", MemberState.UNREACHABLE), limit=1)

Nodes are named a1, a2 and so on, at 10.0.0.1 and on; the first three are the
seeds. What is asked of a node happens in its turn, so let time pass before
looking. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random

from dcosnet.errors import DcosnetError
from dcosnet.gossip.messages import Told
from dcosnet.gossip.spread import BULK
from dcosnet.model.delta import NOTHING, Known
from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.sim.clock import Clock
from dcosnet.sim.network import Conditions, Host, Network
from dcosnet.sim.node import Node, Watch, Written
from dcosnet.sim.trace import Trace

SEEDS = 3
STEP = 0.05


class NotReachedError(DcosnetError):
    """What `run_until` waited for did not come."""

    def __init__(self, what: str, limit: float, state: str) -> None:
        super().__init__(what, limit, state)
        self.what = what
        self.limit = limit
        self.state = state

    def __str__(self) -> str:
        return f"{self.what} was not reached in {self.limit:g} s; {self.state}"


class Simulation:
    """All nodes, the network between them, and the time."""

    def __init__(self, seed: int, conditions: Conditions | None = None, *, verified: bool = True) -> None:
        self.clock = Clock()
        self.trace = Trace()
        self.rng = Random(seed)
        self.network = Network(self.clock, Random(self.rng.getrandbits(64)), self.trace, conditions)
        self.nodes: dict[str, Node] = {}
        self.verdicts: list[Callable[[str, str, MemberState], None]] = []
        """Called with (observer, member, state) when an observer's verdict changes."""
        self.arrivals: list[Callable[[str, str, Known, str | None], None]] = []
        """Called with (observer, owner, known, from whom) when a node knows more of an owner."""
        self._verified = verified

    # Time

    @property
    def now(self) -> float:
        """Seconds; it does not begin at 0."""
        return self.clock.now

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.run(self.clock.now + seconds)

    def run_until(self, reached: Callable[[], bool], limit: float, step: float = STEP) -> float:
        """Let time pass until this is so, looked at each `step`; gives how long that took. Raises NotReachedError."""
        began = self.clock.now
        while not reached():
            if self.clock.now - began >= limit:
                raise NotReachedError(getattr(reached, "__name__", "it"), limit, self.summary())
            self.run(step)
        return self.clock.now - began

    def wait(self, written: Written, limit: float = 1.0) -> bool:
        """Let time pass until a write is acknowledged or refused, at most so long; whether it was acknowledged."""
        end = self.clock.now + limit
        while not written.over and self.clock.now < end:
            self.run(0.001)
        return written.acknowledged is not None

    # Nodes

    def add(self, name: str, address: str | None = None, *, cluster: str = "sim", seeds: Iterable[str] = ()) -> Node:
        """A node that does not run yet; seeds are names of nodes, by default the first three."""
        number = len(self.nodes) + 1
        watch = Watch(self._verdict, self._arrival)
        address = address or f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        node = Node(self.clock, self.network, Random(self.rng.getrandbits(64)), watch, name, address, cluster)
        node.verified = self._verified
        self.nodes[name] = node
        node.seeds = tuple(self.nodes[seed].endpoint for seed in seeds or list(self.nodes)[:SEEDS])
        return node

    def start(self, count: int, within: float = 0.0) -> tuple[str, ...]:
        """Add and start so many nodes, each at some time within so many seconds from now; gives their names."""
        first = len(self.nodes) + 1
        names = tuple(f"a{number}" for number in range(first, first + count))
        for name in names:
            self.add(name)
        seeds = tuple(node.endpoint for node in list(self.nodes.values())[:SEEDS])
        for name in names:
            self.nodes[name].seeds = seeds
            self.nodes[name].meant = True
            self.clock.at(self.clock.now + self.rng.random() * within, self.nodes[name].boot)
        self.run(0.0)
        return names

    def acquaint(self) -> None:
        """
        Let all nodes that run know what each says of itself, without a frame; they make their links then.

        What a start comes to in the end, without its cost, which grows with the square of the nodes.
        """
        said = [(Told(node.core.table.own), node.store.missing(node.name, NOTHING, BULK)) for node in self.up]
        for node in self.up:
            node.put(partial(node.learn, said))

    def kill(self, name: str) -> None:
        """End a node's process: its host says so to whoever asks."""
        self.nodes[name].kill()

    def stop(self, name: str) -> None:
        """Take a node's power: its host says nothing any more."""
        self.nodes[name].stop()

    def leave(self, name: str) -> None:
        """Let a node go in order; a second later its process ends."""
        node = self.nodes[name]
        node.put(lambda: node.core.leave(self.clock.now))
        self.clock.at(self.clock.now + 1.0, node.kill)

    def restart(self, name: str, *, wipe: bool = False) -> None:
        """Start a node again, with its disk or with an empty one. If it runs it is killed before."""
        node = self.nodes[name]
        if node.running:
            node.kill()
        if wipe:
            node.disk.wipe()
            node.remembered = ()
        node.boot()

    def move(self, name: str, address: str) -> None:
        """Let a node that does not run have another host when it is started again."""
        node = self.nodes[name]
        assert not node.running, f"{name} runs"
        node.host = self.network.host(address)

    def pause(self, name: str, seconds: float) -> None:
        """Let a node's process stand still."""
        process = self.nodes[name].process
        assert process is not None
        process.pause(seconds)

    def stall(self, name: str, seconds: float) -> None:
        """Let all that a node sends and is sent be late, while its timers run on."""
        self.network.stall(self.nodes[name].host, seconds)

    def skew(self, name: str, seconds: float) -> None:
        """Let the time of a node's host jump."""
        self.nodes[name].skew(seconds)

    # The network

    def partition(self, *sides: Iterable[str]) -> None:
        """Let only nodes of one side reach each other; those that are not named are one more side."""
        self.network.part([[self.nodes[name].host for name in side] for side in sides])

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from one node to another; the way back stays."""
        self.network.cut(self.nodes[source].host, self.nodes[target].host)

    def mute(self, name: str) -> None:
        """Let nothing through that a node sends; it hears all."""
        self._each(name, self.network.cut)

    def deafen(self, name: str) -> None:
        """Let nothing through to a node; what it sends arrives."""
        self._each(name, lambda host, other: self.network.cut(other, host))

    def lose(self, name: str, share: float) -> None:
        """Lose a share of what a node sends."""
        self.nodes[name].host.loss = share

    def slow(self, name: str, octets: float | None) -> None:
        """Let a node take in so many octets a second, or as many as there are."""
        self.nodes[name].host.reads = octets

    def heal(self) -> None:
        """Undo all that was done to the network; slow readers stay slow."""
        self.network.heal()

    # The store

    def write(self, name: str, changes: Mapping[str, bytes | None], *, durable: bool = False) -> Written:
        """Write at a node; whether it was acknowledged is to be seen in what this gives."""
        return self.nodes[name].write(changes, Lifetime.DURABLE if durable else Lifetime.LEASE)

    def knows(self, written: Written) -> Callable[[], bool]:
        """For `run_until`: whether all nodes that run know a write."""

        def everybody_knows() -> bool:
            return written.known is not None and all(
                node.store.known().get(written.node, (0, 0)) >= written.known for node in self.up
            )

        return everybody_knows

    # What there is to see

    @property
    def up(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.process is not None and node.process.running]

    def state(self, observer: str, member: str) -> MemberState | None:
        """What one node thinks of another; None if it does not know it."""
        return self.nodes[observer].states.get(member)

    def share(self, member: str, *states: MemberState) -> float:
        """Which share of the other nodes that run think so of a member."""
        others = [node for node in self.up if node.name != member]
        return sum(node.states.get(member) in states for node in others) / max(1, len(others))

    def sees(self, member: str, *states: MemberState) -> bool:
        """Whether all other nodes that run think so of a member."""
        return self.share(member, *states) == 1.0

    def whole(self) -> bool:
        """Whether all nodes that run take all of them for alive, and no other."""
        up = self.up
        alive = {node.name for node in up}
        return len(up) == sum(node.meant for node in self.nodes.values()) and all(
            {name for name, state in node.states.items() if state is MemberState.ALIVE} == alive for node in up
        )

    def equal(self) -> bool:
        """Whether all nodes that run know the same of all owners, and have the same entries."""
        up = self.up
        if not up:
            return True
        known, entries = dict(up[0].store.known()), up[0].store.entries()
        return all(dict(node.store.known()) == known and node.store.entries() == entries for node in up[1:])

    def sent(self) -> int:
        """Octets that all nodes have sent, with what TLS adds."""
        return sum(host.sent_bytes for host in self.network.hosts.values())

    def summary(self) -> str:
        """For people: which nodes think otherwise of whom than is true."""
        alive = {node.name for node in self.up}
        lines = []
        for node in self.up:
            wrong = {
                name: state
                for name, state in node.states.items()
                if (state is MemberState.ALIVE) is not (name in alive)
            }
            missing = alive - node.states.keys()
            if wrong or missing:
                odd = [f"{name} {state}" for name, state in sorted(wrong.items())]
                odd += [f"{name} unknown" for name in sorted(missing)]
                lines.append(f"{node.name} takes {', '.join(odd[:8])}{' ...' if len(odd) > 8 else ''}")
        return "; ".join(lines[:10]) or "all nodes take all others for what they are"

    def _each(self, name: str, call: Callable[[Host, Host], None]) -> None:
        host = self.nodes[name].host
        for node in self.nodes.values():
            if node.host is not host:
                call(host, node.host)

    def _verdict(self, observer: str, member: str, state: MemberState) -> None:
        for call in self.verdicts:
            call(observer, member, state)

    def _arrival(self, observer: str, owner: str, known: Known, source: str | None) -> None:
        for call in self.arrivals:
            call(observer, owner, known, source)
