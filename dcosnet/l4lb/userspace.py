"""
The userspace data plane: listening sockets of this process, and a proxy behind them.

It needs no privileges where the addresses are local, as all of 127/8 is on
Linux; `homes` makes others so where it may. A listener that cannot be had spoils
only itself.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from dcosnet.errors import DataPlaneError
from dcosnet.interfaces import IDataPlane
from dcosnet.l4lb.homes import AddressError, Homes, remedy
from dcosnet.l4lb.ledger import Ledger
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.plan import Change, Listen, Serve, plan
from dcosnet.l4lb.routes import Network
from dcosnet.l4lb.schedule import Notice, Schedule
from dcosnet.l4lb.sockets import Sockets
from dcosnet.l4lb.tcp import Proxy, TcpListener
from dcosnet.l4lb.udp import Relay, UdpListener
from dcosnet.model.net import Address, Protocol

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

    able = frozenset(
        {
            "tcp",
            "udp",
            "ipv6",
            "retry",
            "drain",
            "weights",
            "latency",
            "outliers",
            "half_close",
            "limits",
            "idle_timeout",
            "unprivileged",
        }
    )

    def __init__(
        self,
        proxy: Proxy,
        relay: Relay,
        schedule: Callable[[], Schedule],
        homes: Homes,
        sockets: Sockets,
        ledger: Ledger,
        resized: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._proxy = proxy
        self._relay = relay
        self._schedule = schedule
        self._homes = homes
        self._sockets = sockets
        self._ledger = ledger
        self._resized = resized
        """Told how many listeners there are when that has changed, since each has a descriptor."""
        self._addresses: dict[Address, int] = {}
        """How many listeners each address has."""
        self._open: dict[Listener, _Open] = {}
        self._problems: dict[Listener, str] = {}

    @property
    def problems(self) -> Mapping[Listener, str]:
        """Why a listener could not be had when it was last tried; a live view."""
        return self._problems

    @property
    def listeners(self) -> int:
        """How many are open."""
        return len(self._open)

    def observe(self, keys: Collection[Listener] | None = None) -> Deferred[Mapping[Listener, Service]]:
        """What listens now; asked for all, addresses are made local again that others took away."""
        if keys is not None:
            return succeed({key: self._open[key].service for key in keys if key in self._open})
        self._homes.keep()
        return succeed({listener: one.service for listener, one in self._open.items()})

    def plan(self, desired: Mapping[Listener, Service], actual: Mapping[Listener, Service]) -> tuple[Change, ...]:
        """See `l4lb.plan`."""
        return plan(desired, actual)

    def apply(self, changes: Sequence[Change]) -> Deferred[None]:
        """Done on return; fails with DataPlaneError for the first listener that could not be had."""
        refused: DataPlaneError | None = None
        before = len(self._open)
        for change in changes:
            try:
                self._carry_out(change)
            except (OSError, AddressError) as error:
                problem = DataPlaneError(change, self._explain(change.listener, error))
                self._note(change.listener, problem.reason)
                refused = refused or problem
            else:
                self._note(change.listener, None)
        if len(self._open) != before:
            self._resized(len(self._open))
        return succeed(None) if refused is None else fail(refused)

    def forget(self, wanted: Mapping[Listener, Service]) -> None:
        """Drop the problems of listeners that nobody wants any more."""
        for listener in [one for one in self._problems if one not in wanted]:
            del self._problems[listener]

    def sweep(self) -> None:
        """All that is wanted is there: give up what an earlier process left beside it, sockets and routes."""
        self._sockets.sweep()
        self._homes.sweep()

    def close(self) -> None:
        """Close all listeners, reset all connections; routes stay, and sockets with whoever keeps them."""
        for one in self._open.values():
            one.socket.close()
        self._open.clear()
        self._sockets.close()
        self._homes.close()
        self._proxy.close()
        self._relay.close()

    def _carry_out(self, change: Change) -> None:
        listener = change.listener
        there = self._open.get(listener)
        if isinstance(change, Listen | Serve):
            vip = str(change.service.vip)
            if there is None:
                there = _Open(change.service, self._listen(listener))
                log.info("{listener} is served for {vip}", listener=str(listener), vip=vip)
            elif there.service.vip != change.service.vip:
                # What was counted so far is another VIP's, and so are the flows.
                there.socket.schedule.update(())
                there.socket.schedule = self._schedule()
            there.socket.schedule.notice = partial(_tell, vip)
            self._ledger.opened(listener, vip, there.socket.schedule)
            there.socket.schedule.update(change.service.backends)
            self._open[listener] = attrs.evolve(there, service=change.service)
        elif there is not None:
            del self._open[listener]
            there.socket.close()
            self._ledger.closed(listener)
            self._sockets.gone(listener)
            self._leave(listener.address)
            log.info("{listener} is served no longer", listener=str(listener))

    def _listen(self, listener: Listener) -> TcpListener | UdpListener:
        address = listener.address
        routed = self._homes.prepare(address)
        try:
            sock = self._sockets.open(listener, routed=routed)
            try:
                opened = self._watch(listener, sock)
            except OSError:
                sock.close()
                self._sockets.gone(listener)
                raise
        except OSError:
            if address not in self._addresses:
                self._homes.release(address)
            raise
        self._addresses[address] = self._addresses.get(address, 0) + 1
        return opened

    def _watch(self, listener: Listener, sock: socket.socket) -> TcpListener | UdpListener:
        if listener.protocol is Protocol.TCP:
            return TcpListener(self._proxy, sock, self._schedule())
        return UdpListener(self._relay, sock, self._schedule())

    def _leave(self, address: Address) -> None:
        """A listener of an address has gone; with the last one its route goes."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
            self._homes.release(address)

    def _explain(self, listener: Listener, error: OSError | AddressError) -> str:
        return str(error) if isinstance(error, AddressError) else explain(error, self._homes.covering(listener.address))

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


def explain(error: OSError, network: Network) -> str:
    """Why a listener could not be had, and what to do about it; `network` is what to make local for it. One line."""
    text = os.strerror(error.errno) if error.errno is not None else str(error)
    return f"{text}. {_remedy(error.errno, network)}"


def _remedy(number: int | None, network: Network) -> str:
    if number == errno.EADDRNOTAVAIL:
        return f"This host does not have the address. {remedy(network)}"
    if number == errno.EAFNOSUPPORT:
        return "This host has no IPv6: leave the IPv6 range out of l4lb.named_vips"
    if number == errno.EADDRINUSE:
        return "Another program has this port: stop it, or give the VIP another port"
    if number in (errno.EACCES, errno.EPERM):
        return (
            "Ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; or give the VIP a higher port"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return "Raise the limit of open files (LimitNOFILE)"
    return "It is tried again"
