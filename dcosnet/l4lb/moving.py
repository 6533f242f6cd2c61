"""
Listeners of names that moved to another address, for as long as resolvers may tell the old one.

Pure. A name moves when an older one comes to its address, or a VIP that is given
by that address. Who asked before goes on to connect there until the answer has
expired; so the old listener serves a little longer, under no name. One whose
address and port another VIP takes is that one's at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from dcosnet.l4lb.listener import Listener, Service


class Moving:
    """The listeners that are kept, each until its time; `kept` is a live view."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[Listener, float] = {}
        self._kept: dict[Listener, Service] = {}

    @property
    def kept(self) -> Mapping[Listener, Service]:
        """What is served beside what is wanted."""
        return self._kept

    def take(
        self,
        before: Mapping[Listener, Service],
        after: Mapping[Listener, Service],
        changed: frozenset[Listener],
        now: float,
    ) -> frozenset[Listener]:
        """Take a change of what is wanted; the listeners that need not be kept, because they are wanted again."""
        gone = {one: before[one] for one in changed if one in before and one not in after}
        homes = {(after[one].vip, one.address.version) for one in changed if one in after}
        for listener, service in gone.items():
            if service.name is not None and (service.vip, listener.address.version) in homes:
                self._kept[listener] = attrs.evolve(service, name=None)
                self._until[listener] = now + self._seconds
        return self._drop([one for one in self._kept if one in after])

    def due(self) -> float | None:
        """When the next one has been kept for long enough."""
        return min(self._until.values(), default=None)

    def expire(self, now: float) -> frozenset[Listener]:
        """Those that have been kept for long enough."""
        return self._drop([one for one, until in self._until.items() if until <= now])

    def _drop(self, listeners: Iterable[Listener]) -> frozenset[Listener]:
        dropped = frozenset(listeners)
        for listener in dropped:
            del self._kept[listener], self._until[listener]
        return dropped
