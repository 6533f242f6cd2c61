"""
Tells the other nodes how far drains have come here, while there are any.

What is left is counted once a second and written when it is not what was told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.drain.count import count
from dcosnet.interfaces import IDrains, ITraffic, IViews
from dcosnet.model.cell import Changed
from dcosnet.model.drain import PREFIX, Progress
from dcosnet.model.snapshot import Snapshot

log = Logger()

INTERVAL = 1.0


class Teller(Service):
    """Follows the drains of the read models; the first count of a drain is told on the turn that it is heard of."""

    def __init__(self, views: IViews, drains: IDrains, traffic: Sequence[ITraffic], reactor: Any) -> None:
        self._views = views
        self._drains = drains
        self._traffic = traffic
        self._reactor = reactor
        self._told: Mapping[str, Progress] | None = None
        self._last = -INTERVAL
        self._due: IDelayedCall | None = None
        self._stop: Callable[[], None] = lambda: None

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()
        self._stop = self._views.snapshot.subscribe(self._take)

    def stopService(self) -> None:
        """What was told stays until this node is gone: so much was left."""
        super().stopService()
        self._stop()
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _take(self, _snapshot: Snapshot, changed: Changed) -> None:
        if changed is not None and not any(key.startswith(PREFIX) for key in changed):
            return
        tidied = self._drains.tidy()
        if tidied is not None:
            tidied.addErrback(_refused)
        if self._due is None:
            # No longer than that, also where the time of day was put back meanwhile.
            self._wait(min(INTERVAL, max(0.0, self._last + INTERVAL - self._reactor.seconds())))

    def _wait(self, seconds: float) -> None:
        self._due = self._reactor.callLater(seconds, self._count)

    def _count(self) -> None:
        self._due = None
        self._last = self._reactor.seconds()
        drained = self._views.drained.value
        carried = [plane.traffic(drained.keys()) for plane in self._traffic] if drained else []
        progress = count(self._views.snapshot.value.drains, drained, carried) or None
        if progress != self._told:
            self._tell(progress)
        if progress is not None:
            self._wait(INTERVAL)

    def _tell(self, progress: Mapping[str, Progress] | None) -> None:
        try:
            self._drains.tell(progress)
        except ValueError as error:  # the store is full; it is tried again with the next count
            log.warn("how far drains have come is not told: {why}", why=str(error))  # noqa: G010 - Twisted's name
        else:
            self._told = progress


def _refused(failure: Failure) -> None:
    """The store has told that its disk refuses; it is tried again with the next change."""
    failure.trap(OSError)
