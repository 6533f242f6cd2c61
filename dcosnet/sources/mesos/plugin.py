"""The part `mesos`: tasks, frameworks and agents of a Mesos cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import msgspec

from dcosnet.config.fields import ConfigPath, Duration, Secret
from dcosnet.errors import ConfigError
from dcosnet.interfaces import IMetrics, ITaskSource, IToolbox, Part
from dcosnet.io.names import resolver
from dcosnet.model.net import Address
from dcosnet.model.node import Node
from dcosnet.sources.mesos.access import Access, Credentials, base_url
from dcosnet.sources.mesos.agent import AgentPoller
from dcosnet.sources.mesos.leader import MasterList, Masters, Watch, ZooKeeperWatch
from dcosnet.sources.mesos.masterinfo import parse_zk
from dcosnet.sources.mesos.service import MesosSource
from dcosnet.sources.mesos.stream import MasterStream

AGENT = "http://127.0.0.1:5051"
"""What is polled when the table names neither an agent nor masters."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[mesos]`: where the operator API is, and how we are let in."""

    agent: str | None = None
    masters: tuple[str, ...] = ()
    zk: Secret | None = None
    master_list: ConfigPath | None = None
    poll: Duration = Duration(2.0)
    refresh: Duration = Duration(30.0)
    ca: ConfigPath | None = None
    cert: ConfigPath | None = None
    key: ConfigPath | None = None
    principal: str | None = None
    secret_file: ConfigPath | None = None
    token_file: ConfigPath | None = None


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """Make the source; nothing is asked before it starts."""
    _check(settings)
    reactor, jitter = toolbox.reactor, toolbox.rng.random
    masters = Masters([_url(url, "mesos.masters") for url in settings.masters], _watches(settings, reactor))
    followed = bool(settings.masters or settings.zk or settings.master_list)
    url = AGENT if settings.agent is None and not followed else settings.agent
    access = Access(
        reactor,
        Credentials(
            ca=settings.ca,
            cert=settings.cert,
            key=settings.key,
            principal=settings.principal,
            secret_file=settings.secret_file,
            token_file=settings.token_file,
        ),
    )
    resolve = resolver(reactor)

    def agent(told: Callable[[], None]) -> AgentPoller:
        assert url is not None
        base = _url(url, "mesos.agent")
        return AgentPoller(
            reactor,
            access,
            base,
            address=toolbox.node.address,
            poll=settings.poll,
            jitter=jitter,
            resolve=resolve,
            told=told,
        )

    def stream(told: Callable[[], None]) -> MasterStream:
        return MasterStream(
            reactor,
            access,
            masters,
            here=partial(_is_here, toolbox.node),
            only_here=url is not None,
            refresh=settings.refresh,
            jitter=jitter,
            resolve=resolve,
            told=told,
        )

    source = MesosSource(
        reactor, toolbox.node, masters, agent if url is not None else None, stream if followed else None
    )
    return Part(
        service=source,
        contributes=((ITaskSource, source), (IMetrics, source)),
        ready=source.unready,
        describe=source.describe,
    )


def _check(settings: Settings) -> None:
    """What does not go together, or would be used by nobody."""
    if (settings.cert is None) is not (settings.key is None):
        missing = "key" if settings.key is None else "cert"
        raise ConfigError(f"mesos.{missing}", "is missing; a client certificate is cert and key")
    if settings.token_file is not None and settings.principal is not None:
        raise ConfigError("mesos.token_file", "and principal are both given; a request carries one of them")
    if settings.secret_file is not None and settings.principal is None:
        raise ConfigError("mesos.principal", "is missing; secret_file is the password of a principal")
    for name, value, least in (("poll", settings.poll, 0.2), ("refresh", settings.refresh, 1.0)):
        if value < least:
            raise ConfigError(f"mesos.{name}", f"{value.text} is less than {least:g}s, which a cluster should not bear")


def _watches(settings: Settings, reactor: Any) -> list[Watch]:
    # Neither ZooKeeper nor a list tells how its masters are reached.
    secured = settings.ca is not None or settings.cert is not None or (settings.agent or "").startswith("https:")
    scheme = "https" if secured else "http"
    watches: list[Watch] = []
    if settings.zk is not None:
        try:
            zookeeper = parse_zk(settings.zk.reveal())
        except ValueError as error:
            raise ConfigError("mesos.zk", str(error)) from None
        if find_spec("kazoo") is None:
            raise ConfigError("mesos.zk", "needs kazoo, which is not installed; pip install 'dcosnet[zookeeper]'")
        watches.append(ZooKeeperWatch(reactor, zookeeper, scheme))
    if settings.master_list is not None:
        watches.append(MasterList(reactor, settings.master_list, scheme))
    return watches


def _url(text: str, setting: str) -> str:
    try:
        return base_url(text)
    except ValueError as error:
        raise ConfigError(setting, str(error)) from None


def _is_here(node: Node, address: Address) -> bool:
    return address.is_loopback or address in (node.address, *node.public_addresses)
