"""
The operator API's documents, read into values.

Total: whatever a document holds, nothing is raised but Unreadable, for a thing
that is useless as a whole (a task without an id). Smaller errors cost only the
field, port or label they are in, and are kept with it as flaws for people.
Nothing here knows what other documents said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import attrs

from dcosnet.model import viplabels
from dcosnet.model.facts import Agent, Framework
from dcosnet.model.net import Address, Protocol, check_port, parse_address, parse_endpoint
from dcosnet.model.provenance import Provenance
from dcosnet.model.task import Health, Port, Runtime, Task, TaskId, TaskState
from dcosnet.sources.services import clip

T = TypeVar("T")
Table = Mapping[str, Any]

# All other states are "preparing": staging, starting, unreachable, unknown.
_STATES = {"TASK_RUNNING": TaskState.RUNNING, "TASK_KILLING": TaskState.KILLING} | dict.fromkeys(
    (
        "TASK_FINISHED",
        "TASK_FAILED",
        "TASK_KILLED",
        "TASK_LOST",
        "TASK_ERROR",
        "TASK_DROPPED",
        "TASK_GONE",
        "TASK_GONE_BY_OPERATOR",
    ),
    TaskState.TERMINAL,
)
_RUNTIMES = {"MESOS": Runtime.MESOS, "DOCKER": Runtime.DOCKER}
_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP}
_SCHEMES = {"tcp://": Protocol.TCP, "udp://": Protocol.UDP}
_LABEL_PORT = "vip_port"
_FLAWS_MAX = 16  # of one task; the rest is counted in a last one


class Unreadable(ValueError):  # noqa: N818 - what it says of a document
    """A document, or a part of it, that cannot be used, with a sentence for people."""


class Entry(NamedTuple):
    """A port as one place of a document tells it; `make_task` makes one Port of several."""

    protocol: Protocol
    port: int | None = None
    host_port: int | None = None
    name: str | None = None
    vips: tuple[str, ...] = ()


@attrs.frozen
class Described:
    """
    What the API told of one task, before its agent and framework are looked up.

    `healthy` is the last word of a check, `checked` whether there is one.
    `mapped` are the port mappings of the container, `status_mapped` those of
    the newest status that has some: they count where the container has none, as
    in pods, and is not Docker's. `flaws` is what could not be read of it, `status_flaws` of its last
    status.
    """

    id: TaskId
    agent: str
    name: str = ""
    state: TaskState = TaskState.PREPARING
    runtime: Runtime = Runtime.UNKNOWN
    checked: bool = False
    healthy: bool | None = None
    addresses: tuple[Address, ...] = ()
    mapped: tuple[Entry, ...] = ()
    status_mapped: tuple[Entry, ...] = ()
    discovered: tuple[Entry, ...] = ()
    labelled: tuple[Entry, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)
    flaws: tuple[str, ...] = ()
    status_flaws: tuple[str, ...] = ()


_NOTHING = Described(TaskId("", ""), "")


def read_task(document: object, known: Callable[[TaskId], Described | None]) -> Described:
    """
    A whole task, as TASK_ADDED and the snapshots tell it.

    Raises Unreadable when it does not say which task it is, or on which agent.
    A field that cannot be read keeps the value that is `known` of the task.
    """
    task = _table(document)
    id_, agent = TaskId(_id(task, "framework_id"), _id(task, "task_id")), _id(task, "agent_id")
    old = known(id_) or _NOTHING
    flaws: list[str] = []
    status_flaws: list[str] = []

    def field(read: Callable[[Table, list[str]], T], kept: T, flaws: list[str] = flaws) -> T:
        try:
            return read(task, flaws)
        except ValueError as error:
            flaws.append(str(error))
            return kept

    runtime, mapped = field(_container, (old.runtime, old.mapped))
    labels, labelled = field(_labels, (old.labels, old.labelled))
    told = field(_statuses, _Told(old.healthy, old.addresses, old.status_mapped), status_flaws)
    return Described(
        id=id_,
        agent=agent,
        name=field(_name, old.name),
        state=field(_state, old.state),
        runtime=runtime,
        checked=task.get("health_check") is not None,
        healthy=told.healthy,
        addresses=told.addresses,
        mapped=mapped,
        status_mapped=told.mapped,
        discovered=field(_discovered, old.discovered),
        labelled=labelled,
        labels=labels,
        flaws=_few(flaws),
        status_flaws=_few(status_flaws),
    )


def updated_task(update: object) -> TaskId:
    """Which task a TASK_UPDATED is about. Raises Unreadable."""
    table = _table(update)
    return TaskId(_id(table, "framework_id"), _id(_member(table, "status"), "task_id"))


def read_update(update: object, before: Described) -> Described:
    """
    `before` after the content of a TASK_UPDATED. Raises Unreadable.

    The state beside the status overrides that of the status; what the status
    does not tell stays as it was.
    """
    table = _table(update)
    status = _member(table, "status")
    flaws: list[str] = []
    state = before.state
    teller = table if table.get("state") is not None else status
    if teller.get("state") is not None:
        try:
            state = _state(teller, flaws)
        except Unreadable as error:
            flaws.append(str(error))
    told = _Told(before.healthy, before.addresses, before.status_mapped).after(status, flaws)
    return attrs.evolve(
        before,
        state=state,
        healthy=told.healthy,
        addresses=told.addresses,
        status_mapped=told.mapped,
        status_flaws=_few(flaws),
    )


def make_task(described: Described, agent: Address, framework: str, source: str, now: float) -> Task:
    """
    The task on an agent with this address, of a framework of this name.

    Its ports are those of mappings, labels and discovery in this order: what an
    earlier one says of a port stands, VIPs unite (spec/l4lb_overlay.md 1.6).
    """
    mapped = described.mapped
    if described.runtime is not Runtime.DOCKER:
        mapped = mapped or described.status_mapped
    entries = _merged(_merged(mapped, described.labelled), described.discovered)
    if described.addresses == (agent,) and described.state in (TaskState.RUNNING, TaskState.KILLING):
        entries = _on_host(entries)
    healthy = False if described.healthy is None and described.checked else described.healthy
    return Task(
        id=described.id,
        name=described.name,
        framework=framework,
        agent=agent,
        addresses=described.addresses,
        ports=tuple(Port(e.protocol, e.port, e.host_port, e.name or "default", e.vips) for e in entries),
        state=described.state,
        health=Health.UNKNOWN if healthy is None else Health.HEALTHY if healthy else Health.UNHEALTHY,
        runtime=described.runtime,
        labels=described.labels,
        provenance=Provenance(source, f"agent {described.agent}", now),
    )


def read_agent(document: object) -> Agent:
    """
    An agent as AGENT_ADDED, the snapshots and GET_AGENT tell it. Raises Unreadable without an id.

    Its address is that of its host name where this is one, or "localhost";
    None where somebody has to look it up.
    """
    table = _table(document)
    info = _member(table, "agent_info")
    hostname, pid = info.get("hostname"), table.get("pid")
    hostname = hostname if isinstance(hostname, str) and _encodable(hostname) else ""
    return Agent(
        id=_id(info, "id"),
        hostname=hostname,
        address=literal(hostname),
        pid=pid if isinstance(pid, str) and _encodable(pid) else "",
    )


def read_framework(document: object) -> Framework:
    """A framework as FRAMEWORK_ADDED and the snapshots tell it. Raises Unreadable without an id or a name."""
    table = _table(document)
    info = _member(table, "framework_info")
    hostname, pid = info.get("hostname"), table.get("pid")
    return Framework(
        id=_id(info, "id"),
        name=_text(info.get("name"), "name"),
        pid=pid if isinstance(pid, str) and _encodable(pid) else "",
        hostname=hostname if isinstance(hostname, str) and _encodable(hostname) else "",
        active=table.get("active") is not False,
    )


def read_id(table: object, key: str) -> str:
    """The text of an id, `{"value": "..."}`. Raises Unreadable."""
    return _id(_table(table), key)


def literal(hostname: str) -> Address | None:
    """The address that a host name is without a look-up; "localhost" is 127.0.0.1, as for dcos-net."""
    try:
        return parse_address("127.0.0.1" if hostname == "localhost" else hostname)
    except ValueError:
        return None


def pid_address(pid: str) -> Address | None:
    """The address in a libprocess id, "slave(1)@10.0.0.4:5051"; None when it holds none."""
    try:
        return parse_endpoint(pid.rpartition("@")[2]).address
    except ValueError:
        return None


class _Told(NamedTuple):
    """What statuses tell, one after another; what one leaves out stays."""

    healthy: bool | None = None
    addresses: tuple[Address, ...] = ()
    mapped: tuple[Entry, ...] = ()

    def after(self, status: Table, flaws: list[str]) -> _Told:
        healthy = status.get("healthy")
        if healthy is not None and not isinstance(healthy, bool):
            flaws.append(f"healthy: {clip(healthy)} is not true or false")
            healthy = None
        addresses: tuple[Address, ...] = ()
        mapped: tuple[Entry, ...] = ()
        try:
            infos = _items(_member(status, "container_status"), "network_infos")
            addresses = tuple(_addresses(infos, flaws))
            if len(addresses) > 1:  # to hash one takes longer than to read it
                addresses = tuple(dict.fromkeys(addresses))
            mapped = tuple(_network_mappings(infos, flaws))
        except ValueError as error:
            flaws.append(str(error))
        return _Told(
            self.healthy if healthy is None else healthy,
            addresses or self.addresses,
            mapped or self.mapped,
        )


def _statuses(task: Table, flaws: list[str]) -> _Told:
    told = _Told()
    statuses = [_table(each) for each in _items(task, "statuses")]
    if len(statuses) > 1:
        statuses.sort(key=_timestamp)
    for status in statuses:
        told = told.after(status, flaws)
    return told


def _timestamp(status: Table) -> float:
    value = status.get("timestamp")
    return float(value) if type(value) is float or (type(value) is int and abs(value) < 1 << 62) else 0.0


def _name(task: Table, _flaws: list[str]) -> str:
    discovery = _member(task, "discovery")
    if discovery.get("name") is not None:
        return _text(discovery["name"], "discovery name")
    return _text(task.get("name", ""), "name")


def _state(table: Table, _flaws: list[str]) -> TaskState:
    return _STATES.get(_text(table.get("state", ""), "state"), TaskState.PREPARING)


def _container(task: Table, flaws: list[str]) -> tuple[Runtime, tuple[Entry, ...]]:
    container = task.get("container")
    if container is None:
        return Runtime.UNKNOWN, ()
    table = _table(container, "container")
    kind = table.get("type", "MESOS")
    runtime = _RUNTIMES.get(kind) if isinstance(kind, str) else None
    if runtime is None:
        raise Unreadable(f"container: type {clip(kind)} is unknown")
    if runtime is Runtime.DOCKER:
        return runtime, tuple(_mappings(_member(table, "docker"), flaws))
    return runtime, tuple(_network_mappings(_items(table, "network_infos"), flaws))


def _network_mappings(infos: list[Any], flaws: list[str]) -> Iterator[Entry]:
    for info in infos:
        yield from _mappings(_table(info, "network_infos"), flaws)


def _mappings(table: Table, flaws: list[str]) -> Iterator[Entry]:
    for mapping in _items(table, "port_mappings"):
        try:
            given = _table(mapping)
            yield Entry(_protocol(given), _port(given, "container_port"), _port(given, "host_port"))
        except ValueError as error:
            flaws.append(f"port mapping {clip(mapping)}: {error}")


def _discovered(task: Table, flaws: list[str]) -> tuple[Entry, ...]:
    entries = []
    for port in _items(_member(_member(task, "discovery"), "ports"), "ports"):
        try:
            entry = _discovery_port(_table(port), flaws)
        except ValueError as error:
            flaws.append(f"discovery port {clip(port)}: {error}")
        else:
            if entry is not None:
                entries.append(entry)
    return tuple(entries)


def _discovery_port(port: Table, flaws: list[str]) -> Entry | None:
    """One discovery port; None for number 0, which means that there is none."""
    scopes, vips = [], []
    for label in _items(_member(port, "labels"), "labels"):
        try:
            key, value = _label(label)
        except ValueError as error:
            flaws.append(f"label {clip(label)} of discovery port {clip(port.get('number'))}: {error}")
            continue
        if key == "network-scope":
            scopes.append(value)
        elif key.startswith(("VIP", "vip")):
            vips.append(value)
            _check_vip(value, flaws)
    if len(scopes) > 1 or (scopes and scopes[0] not in {"host", "container"}):
        raise Unreadable(f"network-scope {clip(', '.join(scopes))} is not host or container")
    if type(port.get("number")) is int and port["number"] == 0:
        return None
    number, name = _port(port, "number"), port.get("name")
    text = None if name is None else _text(name, "name")
    unique = tuple(dict.fromkeys(vips))
    if scopes == ["host"]:
        return Entry(_protocol(port), None, number, text, unique)
    return Entry(_protocol(port), number, None, text, unique)


def _labels(task: Table, flaws: list[str]) -> tuple[Mapping[str, str], tuple[Entry, ...]]:
    """The labels of a task, and the host ports that its labels VIP_PORT<n> make."""
    labels: dict[str, str] = {}
    entries = []
    for item in _items(_member(task, "labels"), "labels"):
        try:
            key, value = _label(item)
            labels[key] = value
            if key[: len(_LABEL_PORT)].lower() == _LABEL_PORT:
                entry = _labelled(task, key[len(_LABEL_PORT) :], value)
                if entry is not None:
                    entries.append(entry)
                    _check_vip(entry.vips[0], flaws)
        except ValueError as error:
            flaws.append(f"label {clip(item)}: {error}")
    return labels, tuple(entries)


def _labelled(task: Table, number: str, value: str) -> Entry | None:
    """The port that VIP_PORT<number> means; None where that is no number, as such a label is somebody else's."""
    if not (number.isascii() and number.isdigit() and len(number) <= 5):
        return None
    protocol = _SCHEMES.get(value[:6])
    if protocol is None:
        raise Unreadable("its value does not begin with tcp:// or udp://")
    return Entry(protocol, None, _offered(task, int(number)), None, (value[6:],))


def _check_vip(text: str, flaws: list[str]) -> None:
    """Tell of a label that makes no VIP. It stays with its port, where each node passes it over."""
    try:
        viplabels.parse(text)
    except ValueError as error:
        flaws.append(str(error))


def _offered(task: Table, index: int) -> int:
    """The port at an index of the `ports` resources, expanded in order."""
    before = 0
    for resource in map(_table, _items(task, "resources")):
        if resource.get("name") != "ports":
            continue
        if resource.get("type") == "SCALAR":
            value = _member(resource, "scalar").get("value")
            spans = [(value, value)]
        else:
            ranges = map(_table, _items(_member(resource, "ranges"), "range"))
            spans = [(each.get("begin"), each.get("end")) for each in ranges]
        for begin, end in spans:
            # A scalar is a double in the API.
            if not (isinstance(begin, int | float) and isinstance(end, int | float) and 0 < begin <= end < 65536):
                raise Unreadable(f"ports {clip(begin)} to {clip(end)} are no resource")
            size = int(end) - int(begin) + 1
            if index < before + size:
                return int(begin) + index - before
            before += size
    raise Unreadable(f"the task has {before} ports, counted from 0")


def _addresses(infos: list[Any], flaws: list[str]) -> Iterator[Address]:
    for info in infos:
        for item in _items(_table(info, "network_infos"), "ip_addresses"):
            text = _table(item, "ip_addresses").get("ip_address")
            if text is None:
                continue
            try:
                yield _address(_text(text, "ip_address"))
            except ValueError as error:
                flaws.append(str(error))


@lru_cache(maxsize=1 << 16)
def _address(text: str) -> Address:
    """The same object for the same text: most addresses are told many times over."""
    return parse_address(text)


def _merged(first: tuple[Entry, ...], second: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Ports of two places: one port where the container's port agrees, else where the host's does."""
    if not (first and second):
        return first or second
    merged = list(first)
    for entry in second:
        place = _place(first, entry)
        if place is None:
            merged.append(entry)
        else:
            merged[place] = _united(merged[place], entry)
    return tuple(merged)


def _place(entries: tuple[Entry, ...], entry: Entry) -> int | None:
    for attribute in (1, 2):  # port, host_port
        wanted = entry[attribute]
        if wanted is None:
            continue
        for place, other in enumerate(entries):
            if other.protocol is entry.protocol and other[attribute] == wanted:
                return place
    return None


def _united(first: Entry, second: Entry) -> Entry:
    return Entry(
        first.protocol,
        second.port if first.port is None else first.port,
        second.host_port if first.host_port is None else first.host_port,
        second.name if first.name is None else first.name,
        tuple(sorted({*first.vips, *second.vips})),
    )


def _on_host(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The ports of a task on its host's network: nothing is mapped there."""
    by_port: dict[tuple[Protocol, int | None], Entry] = {}
    for entry in entries:
        plain = entry if entry.host_port is None else entry._replace(port=entry.host_port, host_port=None)
        held = by_port.get((plain.protocol, plain.port))
        by_port[plain.protocol, plain.port] = plain if held is None else _united(held, plain)
    return tuple(by_port.values())


def _label(label: object) -> tuple[str, str]:
    table = _table(label)
    return _text(table.get("key"), "key"), _text(table.get("value", ""), "value")


def _protocol(table: Table) -> Protocol:
    text = table.get("protocol")
    protocol = _PROTOCOLS.get(text.lower()) if isinstance(text, str) else None
    if protocol is None:
        raise Unreadable("it has no protocol" if text is None else f"protocol {clip(text)} is not tcp or udp")
    return protocol


def _port(table: Table, key: str) -> int:
    value = table.get(key)
    if type(value) is not int:
        raise Unreadable(f"it has no {key}" if value is None else f"{key} {clip(value)} is not a port number")
    return check_port(value)


def _id(table: Table, key: str) -> str:
    text = _member(table, key).get("value")
    if isinstance(text, str) and text and (text.isascii() or _encodable(text)):
        return text
    raise Unreadable(f"{key} {clip(table.get(key))} is not an id")


def _member(table: Table, key: str) -> Table:
    """A member that is an object; an absent one is an empty object."""
    value = table.get(key)
    if isinstance(value, dict):
        return value
    return {} if value is None else _table(value, key)


def _items(table: Table, key: str) -> list[Any]:
    """A member that is a list; an absent one is an empty list."""
    value = table.get(key)
    if isinstance(value, list):
        return value
    if value is None:
        return []
    raise Unreadable(f"{key}: {clip(value)} is not a list")


def _table(value: object, key: str = "") -> Table:
    if not isinstance(value, dict):
        raise Unreadable(f"{key}: {clip(value)} is not an object" if key else f"{clip(value)} is not an object")
    return value


def _text(value: object, key: str) -> str:
    # Asked here, since a call for each of a million texts takes its time.
    if isinstance(value, str) and (value.isascii() or _encodable(value)):
        return value
    raise Unreadable(f"{key} {clip(value)} is not text")


def _encodable(text: str) -> bool:
    """Whether text can be stored and sent; JSON may hold halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _few(flaws: list[str]) -> tuple[str, ...]:
    if len(flaws) <= _FLAWS_MAX:
        return tuple(flaws)
    return (*flaws[:_FLAWS_MAX], f"and {len(flaws) - _FLAWS_MAX} more")
