"""
The userspace data plane: listening sockets of this process, and a proxy behind them.

It needs no privileges where the addresses are local, as all of 127/8 is on
Linux. A listener that cannot be had spoils only itself.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from dcosnet.errors import DataPlaneError
from dcosnet.interfaces import IDataPlane
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.plan import Change, Listen, Serve, plan
from dcosnet.l4lb.schedule import Notice, Schedule
from dcosnet.l4lb.tcp import Proxy, TcpListener
from dcosnet.l4lb.udp import Relay, UdpListener
from dcosnet.model.net import Protocol

log = Logger()


@attrs.frozen
class _Open:
    service: Service
    socket: TcpListener | UdpListener


@implementer(IDataPlane)
class Userspace:
    """
    Listeners that this process holds.

    Values are Mapping[Listener, Service]; changes are those of `plan`. What
    drains (connections whose listener or backend has gone) is not observed; it
    ends by itself.
    """

    able = frozenset({"tcp", "udp", "retry", "drain", "half_close"})

    def __init__(self, proxy: Proxy, relay: Relay, schedule: Callable[[], Schedule]) -> None:
        self._proxy = proxy
        self._relay = relay
        self._schedule = schedule
        self._open: dict[Listener, _Open] = {}
        self._problems: dict[Listener, str] = {}

    @property
    def problems(self) -> Mapping[Listener, str]:
        """Why a listener could not be had when it was last tried; a live view."""
        return self._problems

    def observe(self) -> Deferred[Mapping[Listener, Service]]:
        """What listens now."""
        return succeed({listener: one.service for listener, one in self._open.items()})

    def plan(self, desired: Mapping[Listener, Service], actual: Mapping[Listener, Service]) -> tuple[Change, ...]:
        """See `l4lb.plan`."""
        return plan(desired, actual)

    def apply(self, changes: Sequence[Change]) -> Deferred[None]:
        """Done on return; fails with DataPlaneError for the first listener that could not be had."""
        refused: DataPlaneError | None = None
        for change in changes:
            try:
                self._carry_out(change)
            except OSError as error:
                problem = DataPlaneError(change, explain(change.listener, error))
                self._note(change.listener, problem.reason)
                refused = refused or problem
            else:
                self._note(change.listener, None)
        return succeed(None) if refused is None else fail(refused)

    def forget(self, wanted: Mapping[Listener, Service]) -> None:
        """Drop the problems of listeners that nobody wants any more."""
        for listener in [one for one in self._problems if one not in wanted]:
            del self._problems[listener]

    def close(self) -> None:
        """Close all listeners, reset all connections."""
        for one in self._open.values():
            one.socket.close()
        self._open.clear()
        self._proxy.close()
        self._relay.close()

    def _carry_out(self, change: Change) -> None:
        listener = change.listener
        there = self._open.get(listener)
        if isinstance(change, Listen | Serve):
            if there is None:
                there = _Open(change.service, self._listen(listener))
                there.socket.schedule.notice = partial(_tell, str(change.service.vip))
                log.info("{listener} is served for {vip}", listener=str(listener), vip=str(change.service.vip))
            there.socket.schedule.update(change.service.backends)
            self._open[listener] = attrs.evolve(there, service=change.service)
        elif there is not None:
            del self._open[listener]
            there.socket.close()
            log.info("{listener} is served no longer", listener=str(listener))

    def _listen(self, listener: Listener) -> TcpListener | UdpListener:
        if listener.protocol is Protocol.TCP:
            return TcpListener(self._proxy, listener, self._schedule())
        return UdpListener(self._relay, listener, self._schedule())

    def _note(self, listener: Listener, reason: str | None) -> None:
        """Keep the problem of a listener; tell when it changes."""
        if self._problems.get(listener) == reason:
            return
        if reason is None:
            del self._problems[listener]
        else:
            self._problems[listener] = reason
            log.warn(  # noqa: G010 - Twisted's name
                "{listener} is not served: {reason}", listener=str(listener), reason=reason
            )


def _tell(vip: str, notice: Notice) -> None:
    """Log that a backend rests or returns."""
    backend = str(notice.backend.endpoint)
    if notice.seconds:
        log.warn(  # noqa: G010 - Twisted's name
            "{backend} of {vip} rests for {seconds:.0f} s: {why}",
            backend=backend,
            vip=vip,
            seconds=notice.seconds,
            why=notice.why,
        )
    else:
        log.info("{backend} of {vip} is back, with a small share at first", backend=backend, vip=vip)


def explain(listener: Listener, error: OSError) -> str:
    """Why a listener could not be had, and what to do about it; one line."""
    text = os.strerror(error.errno) if error.errno is not None else str(error)
    return f"{text}. {_remedy(listener, error.errno)}"


def _remedy(listener: Listener, number: int | None) -> str:
    if number == errno.EADDRNOTAVAIL:
        if listener.address.version == 6:
            return "This host does not have the address: give it one, or leave the IPv6 range out of l4lb.named_vips"
        return (
            "This host does not have the address. On Linux all of 127/8 is local: take l4lb.named_vips from "
            "127.11.0.0-127.11.255.254, or as root make the range local, as in `ip route add local 11.0.0.0/8 dev lo`"
        )
    if number == errno.EADDRINUSE:
        return "Another program has this port: stop it, or give the VIP another port"
    if number in (errno.EACCES, errno.EPERM):
        return (
            "Ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; or give the VIP a higher port"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return "Raise the limit of open files (LimitNOFILE)"
    return "It is tried again"
