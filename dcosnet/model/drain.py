"""
Draining: what may be drained, how it is written, and how far it has come.

Pure. Texts are `backend/10.0.0.1:8000`, `backend/tcp/10.0.0.1:8000`,
`host/NAME` or `host/ADDRESS`, `service/GROUP/NAME` and `task/FRAMEWORK/ID`;
what could be taken for something else inside a name is quoted. The key of a
drain in the store is its text after `drain/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import attrs

from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Address, Endpoint, Protocol, parse_address, parse_endpoint
from dcosnet.model.task import TaskId

if TYPE_CHECKING:
    from dcosnet.model.snapshot import Owned

PREFIX = "drain/"


@attrs.frozen
class DrainedBackend:
    """An address and port, of both protocols unless one is given."""

    endpoint: Endpoint
    protocol: Protocol | None = None

    def __str__(self) -> str:
        return f"backend/{self.endpoint}" if self.protocol is None else f"backend/{self.protocol}/{self.endpoint}"

    @property
    def short(self) -> str:
        """What people may write for it."""
        return str(self).removeprefix("backend/")


@attrs.frozen
class DrainedHost:
    """All backends whose agent is a node, by its name, or has an address."""

    host: Address | str

    def __str__(self) -> str:
        return f"host/{quote(str(self.host), safe='@:')}"

    @property
    def short(self) -> str:
        """What people may write for it."""
        return str(self.host)


@attrs.frozen
class DrainedService:
    """All tasks of a name in a framework, which for services from files is their group."""

    group: str
    name: str

    def __str__(self) -> str:
        return f"service/{quote(self.group, safe='@:')}/{quote(self.name, safe='@:')}"

    @property
    def short(self) -> str:
        """What people may write for it."""
        return f"{self.name}.{self.group}"


@attrs.frozen
class DrainedTask:
    """One task."""

    id: TaskId

    def __str__(self) -> str:
        return self.id.key

    @property
    def short(self) -> str:
        """What people may write for it."""
        return self.id.task


Drainable = DrainedBackend | DrainedHost | DrainedService | DrainedTask


def key_of(what: Drainable) -> str:
    """The key of its drain in the store."""
    return f"{PREFIX}{what}"


def parse_drainable(text: str) -> Drainable | None:
    """
    What a text says by itself: a full text, an address, or an address with a port.

    None for a plain name: who knows tasks and nodes can tell what has it.
    Raises ValueError with a sentence for people.
    """
    if not text or not text.isprintable():
        raise ValueError("it is empty" if not text else "it has characters that cannot be printed")
    kind, slash, rest = text.partition("/")
    if slash and kind in _KINDS:
        return _KINDS[kind](rest)
    if slash and kind in tuple(Protocol):
        return _backend(text)
    try:
        return DrainedHost(parse_address(text))
    except ValueError:
        pass
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and host:
        return _backend(text)
    return None


def _backend(text: str) -> DrainedBackend:
    kind, slash, rest = text.partition("/")
    if slash and kind not in tuple(Protocol):
        raise ValueError(f"{kind!r} is neither tcp nor udp")
    return DrainedBackend(parse_endpoint(rest if slash else text), Protocol(kind) if slash else None)


def _host(text: str) -> DrainedHost:
    name = _named(text, "host/NAME or host/ADDRESS", 1)[0]
    try:
        return DrainedHost(parse_address(name))
    except ValueError:
        return DrainedHost(name)


def _service(text: str) -> DrainedService:
    return DrainedService(*_named(text, "service/GROUP/NAME", 2))


def _task(text: str) -> DrainedTask:
    return DrainedTask(TaskId(*_named(text, "task/FRAMEWORK/ID", 2)))


def _named(text: str, form: str, count: int) -> list[str]:
    names = [unquote(part) for part in text.split("/")]
    if len(names) != count or not all(names):
        raise ValueError(f"it is not {form}; a slash inside a name is written %2F")
    return names


_KINDS: Mapping[str, Callable[[str], Drainable]] = {
    "backend": _backend,
    "host": _host,
    "service": _service,
    "task": _task,
}


@attrs.frozen
class Drain:
    """
    That something is to be drained, or since then not any more: who said it, when, and why.

    `since` is in seconds since the epoch, by the clock of the node that wrote
    it. Not `on`: it was ended, where another node had begun it.
    """

    what: Drainable
    user: str = ""
    since: float = 0.0
    note: str = ""
    on: bool = True


@attrs.frozen
class Left:
    """What a node still has to a backend that drains: flows, and whether it gives it new ones."""

    flows: int
    taking: bool = False


@attrs.frozen
class Progress:
    """
    How far a drain has come on one node.

    `since` is the drain's own, so that what was said of an earlier drain of the
    same is not taken for it. By "tcp/10.0.0.1:8000" those backends that are not
    done; with none, the node is done.
    """

    since: float
    left: Mapping[str, Left] = attrs.field(factory=dict)

    @property
    def flows(self) -> int:
        """Flows that this node still has to what drains."""
        return sum(left.flows for left in self.left.values())


def place(protocol: Protocol, endpoint: Endpoint) -> str:
    """What a backend is called in a Progress."""
    return f"{protocol}/{endpoint}"


@attrs.frozen
class Overall:
    """How far a drain has come: what each node that told has left, and who has to tell yet."""

    nodes: Mapping[str, Progress]
    silent: tuple[str, ...]

    @property
    def flows(self) -> int:
        """Flows that are left anywhere, as far as it was told."""
        return sum(progress.flows for progress in self.nodes.values())

    @property
    def taking(self) -> tuple[str, ...]:
        """Nodes that still give new flows to something of it."""
        return tuple(
            name for name, progress in self.nodes.items() if any(left.taking for left in progress.left.values())
        )

    @property
    def done(self) -> bool:
        """Whether nothing is left, and everybody has said so."""
        return not self.silent and not any(progress.left for progress in self.nodes.values())

    def of(self, backend: str) -> Left:
        """What is left to one backend, in all."""
        told = [progress.left[backend] for progress in self.nodes.values() if backend in progress.left]
        return Left(sum(left.flows for left in told), any(left.taking for left in told))


def overall(
    key: str, since: float, told: Iterable[Owned[Mapping[str, Progress]]], members: Mapping[str, Member]
) -> Overall:
    """
    What the nodes have told of a drain that began then.

    Who is dead or has left carries no flows, and nobody waits for its word.
    """
    nodes = dict(sorted(_of_drain(key, since, told)))
    present = (name for name, one in members.items() if one.state in (MemberState.ALIVE, MemberState.UNREACHABLE))
    return Overall(nodes, tuple(sorted(name for name in present if name not in nodes)))


def _of_drain(key: str, since: float, told: Iterable[Owned[Mapping[str, Progress]]]) -> Iterator[tuple[str, Progress]]:
    for owned in told:
        progress = owned.value.get(key)
        if progress is not None and progress.since == since:
            yield owned.owner, progress
