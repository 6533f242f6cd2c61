"""
How many connections may be open at once.

Whoever can connect can also say nothing, or a byte a minute. Each such
connection holds a descriptor that DNS and the VIPs need, so there is a bound;
at it, the one whose last whole request came longest ago makes room. Those who
ask get through, however many others only wait.
"""

from __future__ import annotations

from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

CONNECTIONS_MAX = 512


class Connection(ProtocolWrapper):
    """One client; the transport of what speaks with it."""

    factory: Bounded

    def asked(self) -> None:
        """A whole request has come: all others make room before this one."""
        if self in self.factory.protocols:
            del self.factory.protocols[self]
            self.factory.protocols[self] = 1


class Bounded(WrappingFactory[Connection]):
    """
    Makes what another factory makes, for at most `limit` clients at once.

    `protocols` are those that are connected, in the order of their last request.
    """

    noisy = False
    protocol = Connection

    def __init__(self, wrapped: IProtocolFactory, limit: int = CONNECTIONS_MAX) -> None:
        super().__init__(wrapped)
        self.protocols: dict[Connection, int]
        self.displaced = 0
        """How many had to make room."""
        self._limit = limit

    def registerProtocol(self, p: Connection) -> None:
        """A client has connected; at the limit another one goes."""
        if len(self.protocols) >= self._limit:
            longest = next(iter(self.protocols))
            del self.protocols[longest]
            self.displaced += 1
            longest.abortConnection()
        self.protocols[p] = 1

    def unregisterProtocol(self, p: Connection) -> None:
        """A client is gone; one that made room was taken out then."""
        self.protocols.pop(p, None)
