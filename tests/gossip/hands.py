"""Whole cores with their stores, carried by hand: a clock, and bytes that pass when the test lets them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path
from random import Random

from dcosnet.gossip.cluster import Cluster, Options
from dcosnet.gossip.effects import Dial, Event, Hang, Write
from dcosnet.gossip.messages import PROTOCOL, Close, Hello, Message, Reason
from dcosnet.gossip.wire import Reader, encode
from dcosnet.model.member import MemberState
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

DISK = Path("/disk")
LATENCY = 0.001
CLUSTER = "prod"


class Node:
    """A process: a core, its store and where it is dialled. `events` are all that it told."""

    def __init__(self, world: World, name: str, options: Options, rig: StoreRig, nonce: int) -> None:
        self.world = world
        self.name = name
        self.certified: str | None = name
        self.rig = rig
        self.ends: dict[int, Wire] = {}
        self.events: list[Event] = []
        self.asleep = False
        self.core = Cluster(options, rig.store, Random(world.seed + nonce), nonce)
        rig.store.follow(lambda owner: self.core.changed(owner, world.now))
        rig.store.follow_copies(lambda owner, known: self.core.stored(owner, known, world.now))
        self.core.start(world.now, int(world.now * 1000))

    def state(self, name: str) -> MemberState | None:
        return self.core.table.state(name)

    def states(self) -> dict[str, str]:
        return {name: str(self.state(name)) for name in self.core.table.names}

    def said(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class Wire:
    """A connection between two ends; `numbers` are what the nodes call it."""

    def __init__(self, one: Node | Stranger, other: Node | Stranger) -> None:
        self.ends = (one, other)
        self.numbers: dict[int, int] = {}
        self.open = True

    def other(self, end: Node | Stranger) -> Node | Stranger:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class Stranger:
    """A peer that the test speaks for; `got` is all that it was told."""

    def __init__(self, world: World, name: str, certified: str | None, generation: int, nonce: int) -> None:
        self.world = world
        self.name = name
        self.certified = certified
        self.generation = generation
        self.nonce = nonce
        self.reader = Reader()
        self.reader.expect_pieces()
        self.got: list[Message] = []
        self.wire: Wire | None = None
        self.answers = True

    def hello(self, **changes) -> Hello:
        made = {
            "least": PROTOCOL, "most": PROTOCOL, "cluster": CLUSTER, "name": self.name, "generation": self.generation,
            "nonce": self.nonce, "clock": int(self.world.now * 1000), "root": bytes(8), "fresh": False,
        }  # fmt: skip
        return Hello(**(made | changes))

    def say(self, *said: Message | bytes) -> None:
        """Send, and let it arrive; later than what was sent before."""
        octets = b"".join(one if isinstance(one, bytes) else encode(one) for one in said)
        self.world.send(self, self.wire, octets)
        self.world.run(2 * LATENCY)

    def hear(self, octets: bytes) -> None:
        for message in self.reader.feed(octets):
            self.got.append(message)

    def heard(self, kind: type) -> list:
        return [message for message in self.got if isinstance(message, kind)]

    @property
    def closed(self) -> int | None:
        """The code it was closed with."""
        return self.got[-1].code if self.got and isinstance(self.got[-1], Close) else None


class World:
    """Nodes by endpoint. `apart` are pairs of names between whom nothing passes, and nobody is told."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 1000.0
        self.seed = seed
        self.nodes: dict[str, Node] = {}
        self.apart: set[frozenset[str]] = set()
        self.dialled: list[tuple[str, str]] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._nonce = 0

    # Hosts

    def start(
        self, name: str, *seeds: str, rig: StoreRig | None = None, endpoint: str | None = None, cluster: str = CLUSTER
    ) -> Node:
        """A process on the host `name`, which is its endpoint too; over the disk of `rig`, or an empty one."""
        self._nonce += 1
        endpoint = endpoint or f"{name}:1"
        rig = rig or StoreRig(DISK, MemoryDisk(DISK), name)
        made = Options(cluster, tuple(f"{seed}:1" for seed in seeds), (), (endpoint,))
        node = Node(self, name, made, rig, self._nonce)
        self.nodes[endpoint] = node
        return node

    def stop(self, node: Node) -> None:
        """Kill a process; its host tells the others."""
        self.nodes = {endpoint: one for endpoint, one in self.nodes.items() if one is not node}
        for wire in set(node.ends.values()):
            self._hang(node, wire)
        node.ends = {}
        node.core = None

    def part(self, *names: str) -> None:
        """Let nothing pass between these and all others."""
        others = {node.name for node in self.nodes.values()} - set(names)
        self.apart |= {frozenset((one, other)) for one in names for other in others}

    def stranger(self, node: Node, name: str, *, certified: str | None = "", generation: int = 1, nonce: int = 77,
                 greets: bool = True) -> Stranger:  # fmt: skip
        """A connection to a node, from somebody that the test speaks for."""
        one = Stranger(self, name, name if certified == "" else certified, generation, nonce)
        one.wire = Wire(one, node)
        number = node.core.accept()
        node.ends[number] = one.wire
        one.wire.numbers[id(node)] = number
        node.core.opened(number, one.certified, f"{name}:9", False, self.now)
        if greets:
            one.say(one.hello())
        self.run(2 * LATENCY)
        return one

    # Time

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._heap, (when, self._order, call))

    def run(self, seconds: float) -> None:
        """Let time pass; nodes are called when they want to be."""
        end, turns = self.now + seconds, 0
        self._out()
        while True:
            turns += 1
            assert turns < 200_000, "it never comes to rest"
            due = [time for node in self._awake() if (time := node.core.due()) is not None]
            times = [*due, *([self._heap[0][0]] if self._heap else [])]
            at = max(self.now, min(times, default=end))
            if at > end:
                break
            self.now = at
            while self._heap and self._heap[0][0] <= self.now:
                heappop(self._heap)[2]()
            for node in self._awake():
                time = node.core.due()
                if time is not None and time <= self.now:
                    node.core.tick(self.now)
            self._out()
            if at == end and not due and not self._heap:
                break
        self.now = end

    def leap(self, seconds: float) -> None:
        """Let much time pass in which nothing happens: nobody is called meanwhile."""
        self.now += seconds

    def _awake(self) -> list[Node]:
        return [node for node in self.nodes.values() if not node.asleep]

    # Wires

    def send(self, end: Node | Stranger, wire: Wire, octets: bytes) -> None:
        self.at(self.now + LATENCY, lambda: self._arrive(wire, wire.other(end), octets))

    def _passes(self, one: Node | Stranger, other: Node | Stranger) -> bool:
        return frozenset((one.name, other.name)) not in self.apart

    def _arrive(self, wire: Wire, to: Node | Stranger, octets: bytes) -> None:
        if not self._passes(*wire.ends):
            return
        if isinstance(to, Stranger):
            to.hear(octets)
        elif to.asleep:
            self.at(self.now + 0.01, lambda: self._arrive(wire, to, octets))
        elif to.core is not None and wire.open and wire.numbers.get(id(to)) in to.ends:
            to.core.feed((wire.numbers[id(to)], octets), self.now)
            self._out()

    def _out(self) -> None:
        for _ in range(1000):
            busy = False
            for node in self._awake():
                for effect in node.core.take_output():
                    busy = True
                    self._do(node, effect)
                for event in node.core.take_events():
                    node.events.append(event)
            if not busy:
                return
        raise AssertionError("output without end")

    def _do(self, node: Node, effect) -> None:
        if isinstance(effect, Write):
            if effect.link in node.ends:
                self.send(node, node.ends[effect.link], effect.data)
        elif isinstance(effect, Dial):
            self.dialled.append((node.name, effect.endpoint))
            self.at(self.now + LATENCY, lambda: self._connect(node, effect))
        elif isinstance(effect, Hang) and effect.link in node.ends:
            self._hang(node, node.ends.pop(effect.link))

    def _connect(self, node: Node, dial: Dial) -> None:
        other = self.nodes.get(dial.endpoint)
        if node.core is None:
            return
        if other is not None and not self._passes(node, other):
            self.at(self.now + dial.timeout, lambda: node.core.unreached(dial.link, self.now, Reason.NO_ANSWER, "late"))
            return
        if other is None:
            node.core.unreached(dial.link, self.now, Reason.REFUSED, "refused")
            return
        wire = Wire(node, other)
        number = other.core.accept()
        wire.numbers = {id(node): dial.link, id(other): number}
        if node is other:
            wire.numbers = {id(node): dial.link}
        node.ends[dial.link] = wire
        other.ends[number] = wire
        other.core.opened(number, node.certified, f"{node.name}:5{number}", False, self.now)
        node.core.opened(dial.link, other.certified, dial.endpoint, True, self.now)
        self._out()

    def _hang(self, node: Node, wire: Wire) -> None:
        other = wire.other(node)

        def gone() -> None:
            number = wire.numbers.get(id(other))
            if wire.open and isinstance(other, Node) and self._passes(node, other) and number in other.ends:
                del other.ends[number]
                other.core.closed(number, self.now, "closed by the other end")
                self._out()
            wire.open = False

        self.at(self.now + LATENCY, gone)
