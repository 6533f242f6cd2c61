"""
Host names of agents and masters, resolved by the reactor's resolver.

A name that cannot be resolved is asked again for as long as it is wanted (D21).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from dcosnet.model.net import Address, parse_address

RETRY = 30.0
"""Seconds until a name that could not be resolved is asked for again."""
PATIENCE = 10.0
"""Seconds until a name counts as one that cannot be resolved."""
AT_ONCE = 8
"""Names asked for at a time: the resolver has a few threads, and others need them too."""

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


class Lookups:
    """
    Resolves the names that are wanted, and tells each as it comes.

    `tell(name, None)` says that it failed this time. `failures` counts those.
    """

    def __init__(self, reactor: Any, resolve: Resolve, tell: Callable[[str, Address | None], None]) -> None:
        self._reactor = reactor
        self._resolve = resolve
        self._tell = tell
        self._wanted: frozenset[str] = frozenset()
        self._asked: dict[str, Deferred[Address | None]] = {}
        self._later: dict[str, IDelayedCall] = {}
        self.failures = 0

    def want(self, names: Iterable[str]) -> None:
        """These and no others; what is under way or was told to have failed lately is not asked for again."""
        self._wanted = frozenset(names)
        for name in self._later.keys() - self._wanted:
            self._later.pop(name).cancel()
        self._go_on()

    def stop(self) -> None:
        """Tell nothing more, and leave nothing in the reactor."""
        self._wanted = frozenset()
        for call in self._later.values():
            call.cancel()
        self._later.clear()
        for asked in list(self._asked.values()):
            asked.cancel()

    def _go_on(self) -> None:
        for name in self._wanted - self._asked.keys() - self._later.keys():
            # An answer that is there already may have led here again, and on.
            gone = name in self._asked or name in self._later or name not in self._wanted
            if len(self._asked) < AT_ONCE and not gone:
                self._ask(name)

    def _ask(self, name: str) -> None:
        found = self._resolve(name)
        self._asked[name] = found
        # An answer that is there already runs `_found` here, which takes it out again.
        found.addCallback(self._found, name)

    def _found(self, address: Address | None, name: str) -> None:
        self._asked.pop(name, None)
        if name in self._wanted:
            if address is None:
                self.failures += 1
                self._later[name] = self._reactor.callLater(RETRY, self._again, name)
            else:
                self._wanted -= {name}
            self._tell(name, address)
        self._go_on()

    def _again(self, name: str) -> None:
        del self._later[name]
        self._go_on()
