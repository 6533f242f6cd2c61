"""
A fleet of real `twistd dcosnet` processes: one cluster, made from one template.

Each node has an address of its own, certificates from `dcosnet ca`, a service
behind a name and a VIP that all share, and a ledger: a part of somebody else
that writes durable keys and answers when they are acknowledged.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode
from click.testing import CliRunner
from daemon import Daemon

from dcosnet.cli.command import dcosnet

CLUSTER = "fleet"
GOSSIP, DNS = 62501, 5353
WEB = "web.shop.agentip.dcos.thisdcos.directory"

CONFIG = """
[node]
name = "{name}"
address = "{address}"
state_dir = "state"
[gossip]
cluster = "{cluster}"
listen = "tcp:{gossip}:interface={address}"
seeds = [{seeds}]
ca = "tls/ca.pem"
cert = "tls/node.pem"
key = "tls/node.key"
[files]
path = "services.d"
[dns]
listen = ["{address}:{dns}"]
[ledger]
[ops]
listen = ["unix:api.sock:mode=600"]
"""

SERVICE = """
[[service]]
name = "web"
group = "shop"
instance = "{name}"
ports = [{{ port = 8000, vip = "/web:80" }}]
"""

PLUGIN = """
from importlib import import_module

from twisted.plugin import IPlugin
from zope.interface import implementer

from dcosnet.interfaces import IKeyValue, IRestResource, IServicePlugin


@implementer(IPlugin, IServicePlugin)
class Descriptor:
    name = "ledger"
    needs = frozenset({IKeyValue})
    offers = frozenset()
    contributes = frozenset({IRestResource})

    @property
    def config(self):
        return import_module("fleet_ledger").Settings

    def make_part(self, config, toolbox):
        return import_module("fleet_ledger").make_part(config, toolbox)


ledger = Descriptor()
"""

LEDGER = """
import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from dcosnet.interfaces import IKeyValue, IRestResource, Part
from dcosnet.model.entry import Lifetime
from dcosnet.model.rest import RestReply


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    pass


@implementer(IRestResource)
class Pages:
    path = "/v1/ledger"
    methods = frozenset({"GET"})
    local = True

    def __init__(self, store):
        self.store = store

    def respond(self, request):
        return RestReply({key: entry.value.decode() for key, entry in self.store.entries("ledger/").items()})


@implementer(IRestResource)
class Page:
    path = "/v1/ledger/<key>"
    methods = frozenset({"PUT"})
    local = True

    def __init__(self, store, node):
        self.store, self.node = store, node

    def respond(self, request):
        key = f"ledger/{self.node}/{request.arguments['key']}"
        acknowledged = self.store.write({key: request.body}, Lifetime.DURABLE)
        return acknowledged.addCallback(lambda _: RestReply({"written": key}))


def make_part(settings, toolbox):
    store = toolbox[IKeyValue]
    pages = (Pages(store), Page(store, toolbox.node.name))
    return Part(Service(), contributes=[(IRestResource, page) for page in pages])
"""

AHEAD = """
import time

_true = time.time
time.time = lambda: _true() + {seconds}
"""

_SERIES = re.compile(r"^([^#\s]\S*) (\S+)$", re.MULTILINE)


def ca(*arguments: object) -> None:
    """`dcosnet ca ...`."""
    done = CliRunner().invoke(dcosnet, ["ca", *map(str, arguments)])
    assert done.exit_code == 0, done.output


def resolve(address: str) -> set[str] | str:
    """The addresses of the name that all share, or what a DNS server says in their place."""
    try:
        reply = dns.query.udp(dns.message.make_query(WEB, "A"), address, timeout=5, port=DNS)
    except dns.exception.Timeout:
        return "no answer"
    if reply.rcode() != dns.rcode.NOERROR:
        return dns.rcode.to_text(reply.rcode())
    return {str(value) for rrset in reply.answer for value in rrset}


class Node(Daemon):
    """One of a fleet; `within` runs it somewhere else, as in a network namespace."""

    patience = 120.0
    pause = 0.1

    def __init__(
        self,
        folder: Path,
        name: str,
        address: str,
        seeds: Iterable[str],
        environment: Mapping[str, str],
        *,
        cluster: str = CLUSTER,
        within: Sequence[str] = (),
    ) -> None:
        folder.mkdir()
        told = ", ".join(f'"{seed}:{GOSSIP}"' for seed in seeds)
        text = CONFIG.format(name=name, address=address, seeds=told, cluster=cluster, gossip=GOSSIP, dns=DNS)
        super().__init__(folder, text, environment)
        (self.services / "web.toml").write_text(SERVICE.format(name=name))
        self.name = name
        self.address = address
        self.tls = folder / "tls"
        self._within = within

    @property
    def argv(self) -> list[str]:
        return [*self._within, *super().argv]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def pause_process(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def members(self) -> dict[str, dict[str, Any]]:
        """How it sees the others and itself, by name."""
        return {member["name"]: member for member in self.get("/v1/members")[1]["members"]}

    def sees(self, states: Mapping[str, str]) -> None:
        """Wait until it sees all these, and nobody else, in these states."""
        self.until("/v1/members", lambda told: {one["name"]: one["state"] for one in told["members"]} == states)

    def sees_well(self, names: Iterable[str]) -> None:
        """Wait until it sees all these, and nobody else, alive and accused by nobody."""
        expected = {(name, "alive", False) for name in names}
        self.until(
            "/v1/members", lambda told: {(o["name"], o["state"], o["degraded"]) for o in told["members"]} == expected
        )

    def backends(self, addresses: Iterable[str]) -> None:
        """Wait until the VIP leads to these."""
        expected = sorted(addresses)
        self.until("/v1/vips", lambda vips: sorted(end["ip"] for vip in vips for end in vip["backend"]) == expected)

    def names(self, addresses: Iterable[str]) -> None:
        """Wait until the name has these addresses."""
        expected = set(addresses)
        self.until(f"/v1/hosts/{WEB}", lambda rows: {row["ip"] for row in rows} == expected)

    def resolve(self) -> set[str] | str:
        """What its DNS server says of the name; to be asked where its address is."""
        return resolve(self.address)

    def put(self, key: str, value: str) -> str:
        """Write a durable key; gives its name once that is acknowledged."""
        status, reply = self.ask("PUT", f"/v1/ledger/{key}", value.encode())
        assert status == 200, reply
        return str(reply["written"])

    def ledger(self) -> dict[str, str]:
        reply: dict[str, str] = self.get("/v1/ledger")[1]
        return reply

    def metrics(self) -> dict[str, float]:
        """All series by name and labels."""
        return {series: float(value) for series, value in _SERIES.findall(self.get("/metrics")[1])}

    def verdicts(self, state: str) -> float:
        """How often it has come to a verdict."""
        return self.metrics()[f'dcosnet_gossip_verdicts_total{{state="{state}"}}']


class Fleet:
    """The nodes; `places` are their addresses, each with what runs a program there."""

    def __init__(self, folder: Path, places: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self.authority = folder / "authority"
        self.site = folder / "site"
        (self.site / "dcosnet" / "plugins").mkdir(parents=True)
        (self.site / "dcosnet" / "plugins" / "fleet_ledger_plugin.py").write_text(PLUGIN)
        (self.site / "fleet_ledger.py").write_text(LEDGER)
        ca("init", "--cluster", CLUSTER, "--out", self.authority)
        self._strangers: list[Node] = []
        self._seeds = list(places)[:3]
        environment = {"PYTHONPATH": str(self.site)}
        self.nodes = [
            Node(folder / f"host-{number:02}", f"host-{number:02}", address, self._seeds, environment, within=within)
            for number, (address, within) in enumerate(places.items(), 1)
        ]
        for node in self.nodes:
            self.issue(node)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def issue(self, node: Node, authority: Path | None = None) -> None:
        """A new certificate for a node, copied to it as a person would."""
        authority = self.authority if authority is None else authority
        issued = self.folder / "issued"
        ca("issue", node.name, "--ca", authority, "--out", issued, "--renew")
        node.tls.mkdir(exist_ok=True)
        for file in ("node.key", "node.pem"):
            shutil.copy(issued / node.name / file, node.tls)
        if not (node.tls / "ca.pem").exists():
            shutil.copy(self.authority / "ca.pem", node.tls)

    def stranger(self, folder: str, name: str, address: str, cluster: str = CLUSTER) -> Node:
        """One more process that asks to be let in by the first node; it has no certificate yet."""
        environment = {"PYTHONPATH": str(self.site)}
        node = Node(self.folder / folder, name, address, self._seeds[:1], environment, cluster=cluster)
        self._strangers.append(node)
        return node

    @contextlib.contextmanager
    def clock_ahead(self, node: Node, seconds: int) -> Iterator[None]:
        """If the node is started in here, its time of day is so far ahead; what it measures with is not."""
        site = self.folder / f"ahead-{seconds}"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(AHEAD.format(seconds=seconds))
        node.environment["PYTHONPATH"] = f"{site}:{self.site}"
        try:
            yield
        finally:
            node.environment["PYTHONPATH"] = str(self.site)

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.nodes}

    @property
    def addresses(self) -> set[str]:
        return {node.address for node in self.nodes}

    def others(self, *nodes: Node) -> list[Node]:
        return [node for node in self.nodes if node not in nodes]

    def start(self, at_once: int = 4) -> None:
        """Start those that do not run, some at a time: a start is a second of work for a processor."""
        waiting = [node for node in self.nodes if node.process is None]
        for first in range(0, len(waiting), at_once):
            batch = waiting[first : first + at_once]
            for node in batch:
                node.start()
            for node in batch:
                node.until("/livez", bool)

    def whole(self) -> None:
        """Wait until all see all well, and know where all is served."""
        for node in self.nodes:
            node.sees_well(self.names)
        for node in self.nodes:
            node.names(self.addresses)
            node.backends(self.addresses)

    def mend(self) -> None:
        """Whatever happened before: all run, and all see all."""
        for node in self.nodes:
            if node.process is not None:
                node.go_on()
                if node.process.poll() is not None:
                    node.process = None
        for stranger in self._strangers:
            if stranger.process is not None:
                stranger.kill()
        self.start()
        self.whole()

    def close(self) -> None:
        for node in (*self.nodes, *self._strangers):
            if node.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    node.kill()


def later(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed, for those who wait for nothing else."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
