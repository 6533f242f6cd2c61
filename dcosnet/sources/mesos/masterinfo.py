"""
What masters leave in ZooKeeper, read into values.

A `zk://` address, and the nodes below it: `json.info_<n>` of Mesos 0.23 and
later, `info_<n>` with a protobuf MasterInfo before that. Nothing here talks to
ZooKeeper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

import attrs
import msgspec

from dcosnet.model.facts import Problem

PORT = 5050
"""Where a master listens that does not say it (MasterInfo's default)."""

_NODE = re.compile(r"(json\.info|info)_([0-9]{1,20})")
_PID = re.compile(r"[^@]*@(.+):([0-9]{1,5})")
_VARINT_MAX = 10  # bytes of a 64-bit number


@attrs.frozen
class ZooKeeper:
    """An ensemble and the path that masters are elected below; `credentials` is "user:password"."""

    hosts: str
    path: str
    credentials: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Master:
    """Where a master listens; `host` is an address or a name."""

    host: str
    port: int


@attrs.frozen
class Elected:
    """
    The masters that stand for election, the leading one among them if it could be read.

    `epoch` grows with each election; 0 while nobody leads.
    """

    masters: tuple[Master, ...] = ()
    leader: Master | None = None
    epoch: int = 0
    problems: tuple[Problem, ...] = ()


def parse_zk(text: str) -> ZooKeeper:
    """Read "zk://[user:password@]host:port,.../path". Raises ValueError, which does not tell the password."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme != "zk":
        raise ValueError('is not a ZooKeeper address; write "zk://host1:2181,host2:2181/mesos"')
    authority, slash, path = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    if at and ":" not in credentials:
        raise ValueError("has a user without a password; write zk://user:password@host:2181/mesos")
    if not all(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?", host) for host in hosts.split(",")):
        raise ValueError(f"{hosts!r} is not a list of HOST:PORT")
    path = path.rstrip("/")
    if not slash or not path or "//" in path:
        raise ValueError("has no path to the masters; it usually ends in /mesos")
    return ZooKeeper(hosts, f"/{path}", credentials if at else None)


def is_candidate(name: str) -> bool:
    """Whether a node's name is one that a master standing for election makes."""
    return _NODE.fullmatch(name) is not None


def elected(nodes: Mapping[str, bytes]) -> Elected:
    """
    What the nodes of an election tell, by name. Total.

    The lowest number leads, of the JSON nodes if there are any. A leader that
    cannot be read is no leader: the next one does not lead either.
    """
    found = [(match[1], int(match[2]), name) for name in nodes if (match := _NODE.fullmatch(name))]
    # A master writes one form or both; the older form then tells nothing more.
    form = "json.info" if any(each[0] == "json.info" for each in found) else "info"
    masters: dict[int, Master] = {}
    problems = []
    ranked = sorted((number, name) for prefix, number, name in found if prefix == form)
    for number, name in ranked:
        try:
            masters[number] = read_json(nodes[name]) if form == "json.info" else read_protobuf(nodes[name])
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    first = ranked[0][0] if ranked else None
    # Distinct, in the order of standing: a master that came back may have left an older node.
    return Elected(
        tuple(dict.fromkeys(masters.values())),
        masters.get(first) if first is not None else None,
        first + 1 if first is not None else 0,
        tuple(problems),
    )


def read_json(data: bytes) -> Master:
    """A master's MasterInfo in JSON. Raises ValueError."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - it is the document that is wrong
    address = document.get("address")
    return _master(address if isinstance(address, dict) else {}, document)


def read_protobuf(data: bytes) -> Master:
    """A master's MasterInfo in protobuf; only the fields that tell where it listens. Raises ValueError."""
    info = dict(_fields(data, {2: "ip", 3: "port", 4: "pid", 5: "hostname", 7: "address"}))
    address = info.pop("address", b"")
    if not isinstance(address, bytes):
        raise ValueError("is not a MasterInfo")  # noqa: TRY004 - as above
    inner = dict(_fields(address, {1: "hostname", 2: "ip", 3: "port"}))
    return _master(_texts(inner), _texts(info))


def _master(address: Mapping[str, Any], info: Mapping[str, Any]) -> Master:
    """The newer field `address`, else the pid, else the address as a number, else the host's name."""
    if isinstance(address.get("ip"), str) and address["ip"]:
        return Master(address["ip"], _port(address.get("port")))
    pid = _PID.fullmatch(info["pid"]) if isinstance(info.get("pid"), str) else None
    if pid is not None:
        return Master(pid[1].strip("[]"), _port(int(pid[2])))
    number = info.get("ip")
    if isinstance(number, int) and 0 < number < 1 << 32:
        # Stored as it is on the wire and read as a number of x86: 16777343 is 127.0.0.1.
        return Master(str(IPv4Address(number.to_bytes(4, "little"))), _port(info.get("port")))
    for source in (address, info):
        if isinstance(source.get("hostname"), str) and source["hostname"]:
            return Master(source["hostname"], _port(source.get("port")))
    raise ValueError("does not tell the master's address")


def _port(value: object) -> int:
    if value is None:
        return PORT
    if isinstance(value, int) and 0 < value < 65536:
        return value
    raise ValueError(f"{value!r} is not a port")


def _texts(values: Mapping[str, int | bytes]) -> dict[str, int | str]:
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in values.items()
    }


def _fields(data: bytes, names: Mapping[int, str]) -> Iterator[tuple[str, int | bytes]]:
    """The named fields of a protobuf message, in order; all others are passed over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | bytes
        match key & 7:
            case 0:
                value, at = _varint(data, at)
            case 1 | 5 as kind:
                size = 8 if kind == 1 else 4
                value, at = _bytes(data, at, size)
            case 2:
                size, at = _varint(data, at)
                value, at = _bytes(data, at, size)
            case _:
                raise ValueError("is not protobuf")
        if key >> 3 in names:
            yield names[key >> 3], value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + _VARINT_MAX]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("is not protobuf: a number has no end")


def _bytes(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise ValueError("is not protobuf: it is cut short")
    return data[at : at + size], at + size
