"""The part `l4lb`: VIPs of the views, served by a data plane, and their zone."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

import msgspec

from dcosnet.config.fields import Duration, IpRange
from dcosnet.errors import ConfigError, ConfigErrors
from dcosnet.interfaces import IMetrics, IToolbox, ITraffic, IViews, IZone, Part
from dcosnet.io.activation import take
from dcosnet.io.epoll import InnerEpoll
from dcosnet.io.notify import Notifier
from dcosnet.l4lb.counts import Counts
from dcosnet.l4lb.descriptors import Room, share
from dcosnet.l4lb.desired import Desired
from dcosnet.l4lb.flows import Flows
from dcosnet.l4lb.homes import Homes
from dcosnet.l4lb.ledger import Ledger
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.metrics import L4lbMetrics
from dcosnet.l4lb.planes import ABILITIES, Plane, choose, lacking
from dcosnet.l4lb.schedule import Pick, Schedule
from dcosnet.l4lb.service import Balancer
from dcosnet.l4lb.sockets import PREFIX, Sockets
from dcosnet.l4lb.tcp import Limits, Proxy
from dcosnet.l4lb.traffic import Traffic
from dcosnet.l4lb.udp import Flow, Relay
from dcosnet.l4lb.userspace import Userspace
from dcosnet.model.cell import Cell
from dcosnet.model.net import reachable
from dcosnet.reconcile.service import Reconciler

NAMED_VIPS = (
    IpRange(IPv4Address("11.0.0.0"), IPv4Address("11.255.255.254")),
    IpRange(IPv6Address("fd01:c::"), IPv6Address("fd01:c::ffff:ffff:ffff:ffff")),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The table `[l4lb]`."""

    plane: Literal["auto", "userspace"] = "auto"
    named_vips: tuple[IpRange, ...] = NAMED_VIPS
    """Where names get their addresses; at most one range per family."""
    routes: bool = True
    """Whether VIP addresses are made local by routes, where the process may."""
    pick: Literal["least", "round_robin", "random"] = "least"
    connect_timeout: Duration = Duration(5.0)
    udp_idle: Duration = Duration(60.0)
    """After which a UDP flow without datagrams ends."""
    max_connections: int = 16384
    """TCP connections open at a time; less where the limit of open files is lower."""
    max_connections_per_vip: int | None = None
    """The same for each VIP port."""
    idle_timeout: Duration | None = None
    """After which a TCP connection that moved nothing is ended; never, when it is not given."""
    max_udp_flows: int = 4096


PLANES = (Plane("userspace", Userspace.able),)
"""The planes there are, the best first."""


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """Build the balancer; it binds when the views tell of VIPs."""
    _check(settings)
    try:
        choice = choose(settings.plane, PLANES)
    except ValueError as error:
        raise ConfigError("l4lb.plane", str(error)) from error
    views = toolbox[IViews]
    counts = Counts()
    epoll = InnerEpoll(toolbox.reactor)
    limits = Limits(
        settings.max_connections,
        float(settings.connect_timeout),
        per_vip=settings.max_connections_per_vip,
        idle_timeout=None if settings.idle_timeout is None else float(settings.idle_timeout),
    )
    proxy = Proxy(epoll, toolbox.reactor, limits, counts)
    flows: Flows[Flow] = Flows(float(settings.udp_idle), settings.max_udp_flows)
    relay = Relay(epoll, toolbox.reactor, flows, counts)
    homes = Homes(settings.named_vips, change=settings.routes)
    notifier = Notifier(os.environ, toolbox.reactor)
    sockets = Sockets(notifier)
    ledger = Ledger()

    def room(listeners: int) -> Room:
        return share(_open_files(), listeners, settings.max_connections, settings.max_udp_flows)

    def resized(listeners: int) -> None:
        fit = room(listeners)
        proxy.allow(fit.connections)
        relay.allow(fit.flows)

    resized(0)
    schedule = partial(Schedule, Pick(settings.pick), toolbox.rng)
    plane = Userspace(proxy, relay, schedule, homes, sockets, ledger, resized)
    desired = Desired(settings.named_vips)

    def reconciler(
        wanted: Cell[Mapping[Listener, Service]], applied: Cell[Mapping[Listener, Service]], ended: Callable[[], None]
    ) -> Reconciler:
        return Reconciler(
            "l4lb",
            plane,
            wanted,
            applied,
            clock=toolbox.reactor,
            rng=toolbox.rng,
            later=toolbox.later,
            round_ended=ended,
        )

    balancer = Balancer(
        views,
        desired,
        plane,
        epoll,
        toolbox.later,
        reconciler,
        lambda: sockets.inherit(take(PREFIX)),
        toolbox.reactor,
    )
    traffic = Traffic(desired, ledger, plane.problems, proxy.underway, toolbox.reactor.seconds)
    metrics = L4lbMetrics(desired, lambda: balancer.applied.value, proxy, relay, plane, balancer.reconciler, traffic)

    def describe() -> Mapping[str, Any]:
        found = [(f"l4lb.{setting}", reason) for setting, reason in lacking(_asked(settings), choice.plane)]
        found += [(f"l4lb.named_vips {given}", reason) for given, reason in homes.problems]
        found += [(str(listener), reason) for listener, reason in plane.problems.items()]
        found += [(one.subject, one.reason) for one in desired.problems]
        return {
            "plane": choice.plane.name,
            "reason": choice.reason,
            "able": sorted(plane.able),
            "not_able": sorted(ABILITIES.keys() - plane.able),
            "named_vips": list(map(str, settings.named_vips)),
            "listeners": plane.listeners,
            "max_connections": proxy.most,
            "max_udp_flows": flows.limit,
            "limited": room(plane.listeners).reason,
            "problems": [{"subject": subject, "reason": reason} for subject, reason in found],
        }

    return Part(
        balancer,
        contributes=((IZone, balancer), (IMetrics, metrics), (ITraffic, traffic)),
        ready=balancer.not_ready,
        describe=describe,
    )


def _asked(settings: Settings) -> Mapping[str, str]:
    """Abilities that these settings take, by setting."""
    asked = {}
    if any(given.first.version == 6 for given in settings.named_vips):
        asked["named_vips"] = "ipv6"
    if settings.pick == "least":
        asked["pick"] = "latency"
    return asked


def _check(settings: Settings) -> None:
    """Raise ConfigErrors for settings that cannot be met."""
    problems = []
    versions = [one.first.version for one in settings.named_vips]
    if len(set(versions)) < len(versions):
        problems.append(ConfigError("l4lb.named_vips", "give at most one range of IPv4 and one of IPv6"))
    problems += [
        ConfigError("l4lb.named_vips", f"nothing can connect to all of {given}; take another range")
        for given in settings.named_vips
        if not (reachable(given.first) and reachable(given.last))
    ]
    for name, value in (
        ("connect_timeout", settings.connect_timeout),
        ("udp_idle", settings.udp_idle),
        ("max_connections", settings.max_connections),
        ("max_connections_per_vip", settings.max_connections_per_vip),
        ("idle_timeout", settings.idle_timeout),
        ("max_udp_flows", settings.max_udp_flows),
    ):
        if value is not None and value <= 0:
            problems.append(ConfigError(f"l4lb.{name}", "must be more than nothing"))
    if problems:
        raise ConfigErrors(problems)


def _open_files() -> int | None:
    """How many files this process may have open; None for any number."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
