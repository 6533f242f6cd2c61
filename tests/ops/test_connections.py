"""The bound on connections, in memory."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

from dcosnet.ops.connections import Bounded, Connection


class Clients:
    """A factory with room for three, and whoever connects."""

    def __init__(self) -> None:
        self.factory = Bounded(ServerFactory.forProtocol(Protocol), limit=3)

    def connect(self) -> Connection:
        connection = self.factory.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = connection
        connection.makeConnection(transport)
        return connection


def living(*connections: Connection) -> list[bool]:
    return [connection.transport.connected for connection in connections]


def test_at_the_limit_the_one_silent_longest_makes_room() -> None:
    """However many come and wait, there are never more, and the newest is served."""
    clients = Clients()
    first, second, third, fourth = (clients.connect() for _ in range(4))
    assert living(first, second, third, fourth) == [False, True, True, True]
    for _ in range(100):
        clients.connect()
    assert len(clients.factory.protocols) == 3
    assert clients.factory.displaced == 101


def test_who_asks_is_the_last_to_make_room() -> None:
    """A client that is at work is not cut off by those that only wait."""
    clients = Clients()
    asking, waiting, other = (clients.connect() for _ in range(3))
    asking.asked()
    clients.connect()
    assert living(asking, waiting, other) == [True, False, True]
    waiting.asked()  # its last bytes were under way; it stays out
    assert len(clients.factory.protocols) == 3


def test_who_leaves_makes_room_without_being_counted() -> None:
    """Only those that were cut off are."""
    clients = Clients()
    gone, *others = (clients.connect() for _ in range(3))
    gone.connectionLost(Failure(ConnectionDone()))
    clients.connect()
    assert all(living(*others))
    assert clients.factory.displaced == 0
