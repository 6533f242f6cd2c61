"""Host names to addresses, by the reactor's resolver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from dcosnet.model.net import Address, parse_address

PATIENCE = 10.0
"""Seconds until a name counts as one that cannot be resolved."""

Resolve = Callable[[str], Deferred[Address | None]]
"""The address of a name, its IPv4 one if it has several; None if it has none. Does not fail."""


@implementer(IResolutionReceiver)
class _Receiver:
    """Takes the addresses of one name."""

    def __init__(self) -> None:
        self.found: Deferred[Address | None] = Deferred()
        self._addresses: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """There is nothing to keep of it: the resolver's thread cannot be stopped."""

    def addressResolved(self, address: IAddress) -> None:
        try:
            self._addresses.append(parse_address(address.host))  # type: ignore[attr-defined]  # IPv4Address, IPv6Address
        except ValueError:
            return  # link-local: it means nothing on another host

    def resolutionComplete(self) -> None:
        if not self.found.called:
            self.found.callback(min(self._addresses, key=lambda one: one.version, default=None))


def resolver(reactor: Any) -> Resolve:
    """The reactor's own resolver."""

    def resolve(name: str) -> Deferred[Address | None]:
        try:
            return defer.succeed(parse_address(name))
        except ValueError:
            if not _askable(name):
                return defer.succeed(None)
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, name)
        receiver.found.addTimeout(PATIENCE, reactor)
        return receiver.found.addErrback(
            lambda failure: failure.trap(defer.TimeoutError, defer.CancelledError) and None
        )

    return resolve


def _askable(name: str) -> bool:
    """Whether it can be a host's name at all: getaddrinfo raises for the others, in a thread where nobody hears it."""
    try:
        return name.isprintable() and bool(name.encode("idna"))
    except UnicodeError:
        return False


class Names:
    """
    Asks for a name once at a time, however many want to know it.

    The resolver's threads are few and cannot be stopped: a name server that is
    silent must not have all of them.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._asked: dict[str, Deferred[Address | None]] = {}
        self._waiting: dict[str, list[Deferred[Address | None]]] = {}

    def address(self, name: str) -> Deferred[Address | None]:
        """As `Resolve`; who cancels it leaves the question to the others."""
        waiter: Deferred[Address | None] = Deferred()
        self._waiting.setdefault(name, []).append(waiter)
        if name not in self._asked:
            asked = self._asked[name] = self._resolve(name)
            # An answer that is there already runs `_found` here.
            asked.addCallback(self._found, name)
        return waiter

    def close(self) -> None:
        """Leave nothing in the reactor; who waits hears that there is no address."""
        for asked in list(self._asked.values()):
            asked.cancel()

    def _found(self, address: Address | None, name: str) -> None:
        del self._asked[name]
        for waiter in self._waiting.pop(name, ()):
            if not waiter.called:
                waiter.callback(address)
