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
            pass
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, name)
        receiver.found.addTimeout(PATIENCE, reactor)
        return receiver.found.addErrback(
            lambda failure: failure.trap(defer.TimeoutError, defer.CancelledError) and None
        )

    return resolve
