"""GET /v1/nodes, as dcos-net has it; with `?force` once every node that can be reached has said anew what it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IViews
from dcosnet.model.cell import Changed
from dcosnet.model.member import MemberState
from dcosnet.model.net import sort_key
from dcosnet.model.node import Node
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.snapshot import Snapshot

WAIT_MAX = 300.0
"""Seconds after which an answer with `?force` tells what is known; dcos-net's limit."""


@implementer(IRestResource)
class Nodes:
    """
    The nodes whose entries are in the store, by address: a dead one is not among them.

    Those who ask with `?force` while others wait share their round, so that there is one at a time.
    """

    path = "/v1/nodes"
    methods = frozenset({"GET"})
    local = False

    def __init__(self, views: IViews, reactor: IReactorTime) -> None:
        self._views = views
        self._reactor = reactor
        self._waiting: list[Deferred[RestReply]] = []
        self._awaited: frozenset[str] = frozenset()
        self._number = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._limit: IDelayedCall | None = None

    def respond(self, request: RestRequest) -> RestReply | Deferred[RestReply]:
        """[{"private_ip","public_ips","hostname","updated"}], `updated` as RFC 3339 has it, in UTC."""
        if "force" not in request.query:
            return self._reply()
        waiting: Deferred[RestReply] = Deferred(self._give_up)
        self._waiting.append(waiting)
        if self._limit is None:
            self._begin()
        return waiting

    def _begin(self) -> None:
        self._number = self._views.refresh()
        members = self._views.snapshot.value.members
        self._awaited = frozenset(name for name, member in members.items() if member.state is MemberState.ALIVE)
        self._limit = self._reactor.callLater(WAIT_MAX, self._end)
        self._unsubscribe = self._views.snapshot.subscribe(self._look)

    def _look(self, snapshot: Snapshot, _changed: Changed) -> None:
        """Who was alive when it was asked, and still is, has to have answered."""
        for name in self._awaited:
            member, node = snapshot.members.get(name), snapshot.nodes.get(f"node/{name}")
            alive = member is not None and member.state is MemberState.ALIVE
            if alive and (node is None or node.value.refresh < self._number):
                return
        self._end()

    def _give_up(self, waiting: Deferred[RestReply]) -> None:
        self._waiting.remove(waiting)
        if not self._waiting:
            self._end()

    def _end(self) -> None:
        assert self._limit is not None
        assert self._unsubscribe is not None
        if self._limit.active():
            self._limit.cancel()
        self._limit = None
        self._unsubscribe()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(self._reply())

    def _reply(self) -> RestReply:
        nodes = (owned.value for owned in self._views.snapshot.value.nodes.values())
        return RestReply([_told(node) for node in sorted(nodes, key=lambda node: (sort_key(node.address), node.name))])


def _told(node: Node) -> dict[str, Any]:
    # A node of an older version does not say when it wrote its entry; that was at its start.
    updated = datetime.fromtimestamp(node.updated or node.started_at, UTC)
    return {
        "private_ip": str(node.address),
        "public_ips": [str(address) for address in node.public_addresses],
        "hostname": node.name,
        "updated": updated.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
