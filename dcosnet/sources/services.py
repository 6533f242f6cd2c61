"""
A service as a person or a program writes it, and the task that it means.

The shape is a table of plain values, from TOML or JSON alike; `files` and
`register` share it. Reading is total: all that is wrong comes back at once, as
flaws with a remedy, and nothing is raised. Nothing here reads files or checks
health.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from dcosnet.config.fields import parse_duration
from dcosnet.model import viplabels
from dcosnet.model.names import LABEL_MAX, label
from dcosnet.model.net import Address, Endpoint, Protocol, check_port, parse_address, reachable
from dcosnet.model.provenance import Provenance
from dcosnet.model.task import Health, Port, Task, TaskId

KEYS = ("name", "group", "instance", "address", "ports", "labels", "weight")
"""What every service may say. `files` adds `check`, `register` adds `ttl`."""

# A service becomes one key of the store, whose value is at most 1 MiB and whose
# name is at most 512 bytes. These bounds keep every service well within.
_PORTS_MAX = 256
_VIPS_MAX = 256
_TEXT_MAX = 255
_LABELS_MAX = 64 << 10
_KEY_MAX = 512
_WEIGHT_MAX = 65535

_PORT_KEYS = ("port", "protocol", "vip", "name")
_CHECK_KEYS = ("http", "tcp", "interval", "timeout", "port")
_INTERVAL, _INTERVAL_MIN = 5.0, 0.1
_TIMEOUT, _TIMEOUT_MIN = 1.0, 0.01
_HOUR = 3600.0


@attrs.frozen
class Flaw:
    """One thing wrong: which service and key, why, and what to do. One line as text."""

    place: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.reason}; {self.remedy}"


@attrs.frozen
class Check:
    """An active check of an endpoint; `path` for http only. Times in seconds."""

    kind: Literal["http", "tcp"]
    endpoint: Endpoint
    path: str = ""
    interval: float = _INTERVAL
    timeout: float = _TIMEOUT

    @property
    def subject(self) -> tuple[str, Endpoint, str]:
        """What is checked, whatever the timing."""
        return (self.kind, self.endpoint, self.path)


@attrs.frozen
class Service:
    """A service that was read; `instance` tells several of one name apart."""

    name: str
    group: str
    address: Address
    ports: tuple[Port, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    weight: int = 1
    instance: str = ""
    check: Check | None = None

    def id(self, source: str, node: str) -> TaskId:
        """Its identity as a task. Two services that are to exist side by side differ in it."""
        instance = f".{self.instance}" if self.instance else ""
        return TaskId(f"{source}/{self.group}", f"{self.name}{instance}@{node}")

    def task(self, source: str, node: str, reference: str, health: Health, observed_at: float = 0.0) -> Task:
        """The running task that it means."""
        return Task(
            id=self.id(source, node),
            name=self.name,
            framework=self.group,
            agent=self.address,
            addresses=(self.address,),
            ports=self.ports,
            health=health,
            weight=self.weight,
            labels=self.labels,
            provenance=Provenance(source, reference, observed_at),
        )

    def table(self) -> dict[str, Any]:
        """What reads back as this service, without its check."""
        return {
            "name": self.name,
            "group": self.group,
            "instance": self.instance,
            "address": str(self.address),
            "ports": [
                {"port": port.port, "protocol": str(port.protocol), "name": port.name, "vip": list(port.vips)}
                for port in self.ports
            ],
            "labels": dict(self.labels),
            "weight": self.weight,
        }


@attrs.frozen
class Reader:
    """
    Reads tables for one source on one node.

    `address` is what a service gets that names none; `extra` are keys that the
    source reads itself; `checks` says whether a service may have a check.
    """

    source: str
    node: str
    address: Address
    extra: tuple[str, ...] = ()
    checks: bool = False

    def read(self, table: object, place: str) -> tuple[Service | None, list[Flaw]]:
        """The service of a table, or None and all that is wrong with it; `place` opens every flaw."""
        return _Reading(self, place).service(table)


def unknown(key: str, known: Iterable[str]) -> tuple[str, str]:
    """The reason and remedy for a key that nobody reads."""
    names = list(known)
    near = difflib.get_close_matches(key.lower(), names, 1, 0.5)
    return f"unknown key {clip(key)}", f"did you mean `{near[0]}`?" if near else "known are " + ", ".join(names)


def clip(value: object) -> str:
    """A value as one short line for people, whatever it holds."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def printable(text: str) -> bool:
    """Whether text is safe to log, to encode and to show: no control characters, no lone surrogates."""
    return text.isprintable()


class _Reading:
    """One table being read; collects flaws."""

    def __init__(self, reader: Reader, place: str) -> None:
        self.reader = reader
        self.place = place
        self.flaws: list[Flaw] = []

    def flaw(self, key: str, reason: str, remedy: str) -> None:
        place = f"{self.place}: {key}" if self.place and key else self.place or key
        self.flaws.append(Flaw(place, reason, remedy))

    def service(self, table: object) -> tuple[Service | None, list[Flaw]]:
        if not isinstance(table, dict):
            self.flaw("", f"{clip(table)} is not a table", 'write [[service]] or {"name": ...}')
            return None, self.flaws
        known = (*KEYS, *(("check",) if self.reader.checks else ()), *self.reader.extra)
        self.keys("", table, known)
        name = self.title(table, "name", 'write name = "web"')
        group = self.title(table, "group", 'write group = "shop"')
        instance = self.instance(table.get("instance", ""))
        address = self.address(table)
        ports = self.ports(table.get("ports", []))
        labels = self.labels(table.get("labels", {}))
        weight = self.weight(table.get("weight", 1))
        check = self.check(table["check"], address, ports) if self.reader.checks and "check" in table else None
        if name and group:
            self.vips(ports, address, group)
            self.identity(Service(name, group, address, instance=instance))
        if self.flaws:
            return None, self.flaws
        return Service(name, group, address, ports, labels, weight, instance, check), []

    def keys(self, prefix: str, table: Mapping[Any, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self.flaw(prefix, *unknown(str(key), known))

    def title(self, table: Mapping[str, Any], key: str, remedy: str) -> str:
        if key not in table:
            self.flaw(key, "is missing", remedy)
            return ""
        value = table[key]
        if not isinstance(value, str) or not value:
            self.flaw(key, f"{clip(value)} is not text", remedy)
            return ""
        if len(value) > LABEL_MAX:
            self.flaw(key, f"{clip(value)} is too long for a DNS label", f"use at most {LABEL_MAX} characters")
            return ""
        if not printable(value):
            self.flaw(key, f"{clip(value)} holds characters that cannot be printed", remedy)
            return ""
        if not label(value):
            self.flaw(key, f"{clip(value)} has no letter or digit, so it makes no DNS name", remedy)
            return ""
        return value

    def instance(self, value: object) -> str:
        if isinstance(value, str) and len(value) <= LABEL_MAX and printable(value):
            return value
        remedy = f'write at most {LABEL_MAX} printable characters, instance = "1"'
        self.flaw("instance", f"{clip(value)} tells no instance", remedy)
        return ""

    def address(self, table: Mapping[str, Any]) -> Address:
        if "address" not in table:
            return self.reader.address
        value, remedy = table["address"], f'write address = "{self.reader.address}"'
        if not isinstance(value, str):
            self.flaw("address", f"{clip(value)} is not an address", remedy)
            return self.reader.address
        try:
            address = parse_address(value)
        except ValueError:
            self.flaw("address", f"{clip(value)} is not an IPv4 or IPv6 address", remedy)
            return self.reader.address
        if not reachable(address):
            self.flaw("address", f"nothing can connect to {address}", remedy)
        return address

    def weight(self, value: object) -> int:
        if type(value) is int and 0 <= value <= _WEIGHT_MAX:
            return value
        self.flaw("weight", f"{clip(value)} is not a whole number from 0 to {_WEIGHT_MAX}", "1 is usual, 0 drains")
        return 1

    def labels(self, value: object) -> dict[str, str]:
        remedy = 'write labels = { KEY = "text" }'
        if not isinstance(value, dict):
            self.flaw("labels", f"{clip(value)} is not a table", remedy)
            return {}
        wrong = [key for key, text in value.items() if not (encodable(key) and encodable(text))]
        for key in wrong:
            self.flaw("labels", f"{clip(key)} = {clip(value[key])} is not text", remedy)
        if not wrong and sum(len(key) + len(text) for key, text in value.items()) > _LABELS_MAX:
            self.flaw("labels", f"are longer than {_LABELS_MAX} characters together", "keep only what is read")
        return dict(value)

    def ports(self, value: object) -> tuple[Port, ...]:
        if not isinstance(value, list):
            self.flaw("ports", f"{clip(value)} is not a list", "write ports = [{ port = 8001 }]")
            return ()
        if len(value) > _PORTS_MAX:
            self.flaw("ports", f"are {len(value)}", f"a service has at most {_PORTS_MAX}")
            return ()
        read = [(number, self.port(f"port {number}", table)) for number, table in enumerate(value, 1)]
        seen: set[tuple[Protocol, int | None]] = set()
        for number, port in read:
            if port is None:
                continue
            if (port.protocol, port.port) in seen:
                self.flaw(f"port {number}", f"{port.port}/{port.protocol} is there twice", "give it one entry")
            seen.add((port.protocol, port.port))
        return tuple(port for _, port in read if port is not None)

    def port(self, place: str, table: object) -> Port | None:
        if not isinstance(table, dict):
            self.flaw(place, f"{clip(table)} is not a table", "write { port = 8001 }")
            return None
        before = len(self.flaws)
        self.keys(place, table, _PORT_KEYS)
        number = self.number(place, table)
        protocol = self.protocol(place, table.get("protocol", "tcp"))
        name = table.get("name", "default")
        if not (isinstance(name, str) and name and len(name) <= _TEXT_MAX and printable(name)):
            self.flaw(place, f"name {clip(name)} is not a name", 'write name = "web"')
        labels = self.vip_labels(place, table.get("vip", []))
        if len(self.flaws) > before:
            return None
        return Port(protocol, number, None, name, labels)

    def number(self, place: str, table: Mapping[str, Any]) -> int:
        if "port" not in table:
            self.flaw(place, "`port` is missing", "write { port = 8001 }")
            return 0
        value = table["port"]
        if type(value) is not int:
            self.flaw(place, f"{clip(value)} is not a port number", "write a whole number without quotes")
            return 0
        try:
            return check_port(value)
        except ValueError:
            self.flaw(place, f"port {clip(value)} does not exist", "use 1 to 65535")
            return 0

    def protocol(self, place: str, value: object) -> Protocol:
        if value not in ("tcp", "udp"):
            self.flaw(place, f"protocol {clip(value)} is unknown", 'write "tcp" or "udp", and one entry for each')
            return Protocol.TCP
        return Protocol(value)

    def vip_labels(self, place: str, value: object) -> tuple[str, ...]:
        texts = value if isinstance(value, list) else [value]
        if len(texts) > _VIPS_MAX:
            self.flaw(place, f"has {len(texts)} VIPs", f"a port has at most {_VIPS_MAX}")
            return ()
        for text in texts:
            if not (isinstance(text, str) and len(text) <= _TEXT_MAX and printable(text)):
                self.flaw(place, f"vip {clip(text)} is not a VIP label", 'write vip = "/web:8000"')
                continue
            try:
                viplabels.parse(text)
            except ValueError as error:
                self.flaw(place, str(error), 'write vip = "/web:8000" or "10.1.2.3:8000"')
        return tuple(dict.fromkeys(text for text in texts if isinstance(text, str)))

    def vips(self, ports: tuple[Port, ...], address: Address, group: str) -> None:
        """What can be said of VIPs only with the whole service at hand."""
        if sum(len(port.vips) for port in ports) > _VIPS_MAX:
            self.flaw("ports", "have too many VIPs", f"a service has at most {_VIPS_MAX}")
        own = {(port.protocol, port.port) for port in ports}
        for port in ports:
            for text in port.vips:
                meant = viplabels.parse(text)
                if meant.address == address and (port.protocol, meant.port) in own:
                    self.flaw("ports", f"VIP {clip(text)} points at itself", "give a name, or an address of its own")
                elif meant.name is not None and viplabels.dns_name(meant.key(port.protocol, group)) is None:
                    self.flaw("ports", f"VIP {clip(text)} makes a name too long for DNS", "shorten it")

    def check(self, value: object, address: Address, ports: tuple[Port, ...]) -> Check | None:
        if not isinstance(value, dict):
            self.flaw("check", f"{clip(value)} is not a table", 'write check = { http = "/health" }')
            return None
        before = len(self.flaws)
        self.keys("check", value, _CHECK_KEYS)
        path = value.get("http", "")
        if ("http" in value) == ("tcp" in value):
            self.flaw("check", "is neither or both of http and tcp", 'write http = "/health" or tcp = true')
        elif "tcp" in value and value["tcp"] is not True:
            self.flaw("check", f"tcp = {clip(value['tcp'])} checks nothing", "write tcp = true or leave `check` out")
        elif "http" in value and not is_target(path):
            self.flaw("check", f"http {clip(path)} is not a path", 'write http = "/health", characters as in a URL')
        interval = self.seconds("interval", value, _INTERVAL, _INTERVAL_MIN)
        timeout = self.seconds("timeout", value, _TIMEOUT, _TIMEOUT_MIN)
        tcp = next((port.port for port in ports if port.protocol is Protocol.TCP and port.port is not None), None)
        number = tcp
        if "port" in value:
            number = self.number("check", value)
        elif tcp is None and not self.flaws:
            self.flaw("check", "there is no TCP port to check", "write check = { ..., port = 8080 }")
        if len(self.flaws) > before or not number:
            return None
        return Check("http" if "http" in value else "tcp", Endpoint(address, number), path, interval, timeout)

    def seconds(self, key: str, table: Mapping[str, Any], default: float, least: float) -> float:
        if key not in table:
            return default
        value, remedy = table[key], f'write {key} = "{default:g}s"'
        if not isinstance(value, str):
            self.flaw("check", f"{key} {clip(value)} is not a duration", remedy)
            return default
        try:
            seconds = float(parse_duration(value))
        except ValueError:
            self.flaw("check", f"{key} {clip(value)} is not a duration", remedy)
            return default
        if not least <= seconds <= _HOUR:
            self.flaw("check", f"{key} {clip(value)} is not between {least:g}s and 1h", remedy)
        return seconds

    def identity(self, service: Service) -> None:
        if len(service.id(self.reader.source, self.reader.node).key.encode()) > _KEY_MAX:
            self.flaw("name", "name, group and instance are too long together", "shorten them")


def encodable(text: object) -> bool:
    """Whether a value is text that UTF-8 can hold; JSON can spell half a surrogate pair."""
    return isinstance(text, str) and not any("\ud800" <= character <= "\udfff" for character in text)


def is_target(path: object) -> bool:
    """Whether it can stand in a request line (RFC 9112 3.2.1): visible ASCII, from the root, no fragment."""
    return (
        isinstance(path, str)
        and path.startswith("/")
        and len(path) <= 2048
        and all("!" <= character <= "~" and character != "#" for character in path)
    )
