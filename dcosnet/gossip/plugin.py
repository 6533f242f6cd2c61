"""The part `gossip`; it always runs, and without a cluster this node is alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from twisted.application.service import Service

from dcosnet.config.fields import ConfigPath
from dcosnet.errors import ConfigError, ConfigErrors
from dcosnet.gossip.contact import parse_contact
from dcosnet.gossip.identity import Identity, check_cluster, check_name
from dcosnet.gossip.membership import Membership
from dcosnet.gossip.metrics import GossipMetrics
from dcosnet.gossip.service import WAITING, Gossip, Setup
from dcosnet.gossip.tls import Tls, TlsFiles
from dcosnet.interfaces import IMembership, IMetrics, IReplica, IToolbox, Part
from dcosnet.io.listening import Socket, parse_socket
from dcosnet.io.steady import Steady

T = TypeVar("T")

FILES = ("ca", "cert", "key")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[gossip]`: which cluster, where it is, and who this node is in it."""

    cluster: str | None = None
    listen: str | tuple[str, ...] = "tcp:62501"
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    ca: ConfigPath | None = None
    cert: ConfigPath | None = None
    key: ConfigPath | None = None
    leave_on_stop: bool = False


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """Make the membership; nobody is dialled before it starts. Raises ConfigErrors."""
    setup = _setup(settings, toolbox)
    steady = Steady(toolbox.reactor)
    membership = Membership(toolbox.node, toolbox.later, steady.seconds, WAITING if setup is not None else None)
    metrics = GossipMetrics(membership)
    offers: dict[Any, object] = {IMembership: membership}
    contributes = ((IMetrics, metrics),)
    if setup is None:
        return Part(service=Service(), offers=offers, contributes=contributes)
    metrics.tls = setup.tls
    service = Gossip(
        toolbox.reactor,
        steady,
        setup,
        toolbox.node,
        toolbox[IReplica],
        membership,
        metrics,
        later=toolbox.later,
        rng=toolbox.rng,
        wall=time.time,
    )
    return Part(
        service=service,
        offers=offers,
        contributes=contributes,
        ready=service.unready,
        describe=service.describe,
    )


def _setup(settings: Settings, toolbox: IToolbox) -> Setup | None:
    """What the settings come to; None without a cluster."""
    if settings.cluster is None:
        unused = [name for name in Settings.__struct_fields__ if getattr(settings, name) != getattr(Settings(), name)]
        if unused:
            raise ConfigErrors(
                [
                    ConfigError(f"gossip.{name}", "is of no use without gossip.cluster; name the cluster")
                    for name in unused
                ]
            )
        return None
    reading = _Reading()
    this = Identity(toolbox.node.name, settings.cluster)
    reading.check("gossip.cluster", check_cluster, this.cluster)
    reading.check("node.name", check_name, this.name)
    listen = (settings.listen,) if isinstance(settings.listen, str) else settings.listen
    if not listen:
        reading.problems.append(ConfigError("gossip.listen", 'is empty; write "tcp:62501"'))
    sockets = [reading.check("gossip.listen", partial(_socket, toolbox.state_dir), text) for text in listen]
    seeds = [reading.check("gossip.seeds", parse_contact, text) for text in settings.seeds]
    advertise = (
        [] if settings.advertise is None else [reading.check("gossip.advertise", parse_contact, settings.advertise)]
    )
    files = {name: path for name in FILES if (path := getattr(settings, name)) is not None}
    if files:
        reading.problems += [
            ConfigError(f"gossip.{name}", "is missing; certificates are ca, cert and key")
            for name in FILES
            if name not in files
        ]
    else:
        away = [f"gossip.listen ({text})" for text in listen if not _is_here(text)]
        away += [str(one) for one in (*seeds, *advertise) if one is not None and not one.is_loopback]
        away += [] if toolbox.node.address.is_loopback else [f"node.address ({toolbox.node.address})"]
        reading.problems += [_unsafe(this, away[0])] if away else []
    if reading.problems:
        raise ConfigErrors(reading.problems)
    return Setup(
        cluster=this.cluster,
        sockets=[one for one in sockets if one is not None],
        seeds=tuple(dict.fromkeys(str(one) for one in seeds)),
        advertise=str(advertise[0]) if advertise else None,
        tls=Tls(TlsFiles(**files), this, time.time) if files else None,
        leave=settings.leave_on_stop,
        book=toolbox.state_dir / "gossip" / "peers",
    )


class _Reading:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self.problems: list[ConfigError] = []

    def check(self, path: str, read: Callable[[str], T], text: str) -> T | None:
        """What the text comes to; None if that is a problem."""
        try:
            return read(text)
        except ConfigError as error:
            self.problems.append(error)
        except ValueError as error:
            self.problems.append(ConfigError(path, str(error)))
        return None


def _unsafe(this: Identity, away: str) -> ConfigError:
    return ConfigError(
        "gossip.ca",
        f"is missing, with cert and key, and {away} is not of this host alone; make certificates with "
        f"`dcosnet ca init --cluster {this.cluster}` and `dcosnet ca issue {this.name}`",
    )


def _socket(base: Path, text: str) -> Socket:
    if text.partition(":")[0] not in ("tcp", "tcp6"):
        raise ValueError(f'{text!r} is no TCP port; write "tcp:62501" or "tcp:62501:interface=10.0.0.1"')
    return parse_socket(text, "gossip.listen", base, 0o600)


def _is_here(text: str) -> bool:
    """Whether only this host can connect to a TCP endpoint."""
    for field in re.split(r"(?<!\\):", text):
        if field.startswith("interface="):
            try:
                return ip_address(field.removeprefix("interface=").replace("\\:", ":")).is_loopback
            except ValueError:
                return False
    return False
