"""
The balancer as a service: the VIP table in, the zone out, a data plane between.

It decides nothing: `desired` says what should listen, the reconcile loop gets it
there, `zone` says what may be told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from dcosnet.interfaces import IViews, IZone
from dcosnet.io.epoll import InnerEpoll
from dcosnet.l4lb.desired import Desired
from dcosnet.l4lb.listener import Listener
from dcosnet.l4lb.listener import Service as VipService
from dcosnet.l4lb.moving import Moving
from dcosnet.l4lb.userspace import Userspace
from dcosnet.l4lb.zone import NOT_APPLIED, VipZone
from dcosnet.model.cell import Cell, Changed, Later
from dcosnet.model.vip import Vip
from dcosnet.model.zone import Zone
from dcosnet.reconcile.service import Reconciler

LINGER = 10.0
"""Seconds that a name's former address is served on: twice the TTL of its records."""


@implementer(IZone)
class Balancer(Service):
    """
    Serves the VIPs of the views.

    The order that the zone keeps: a name appears after the round that brought
    its listeners, and is gone before the round goes on to close them, because
    the loop waits in between until the readers of this zone have been told.
    """

    def __init__(
        self,
        views: IViews,
        desired: Desired,
        plane: Userspace,
        epoll: InnerEpoll,
        later: Later,
        reconciler: Callable[
            [Cell[Mapping[Listener, VipService]], Cell[Mapping[Listener, VipService]], Callable[[], None]], Reconciler
        ],
        inherit: Callable[[], None],
        clock: IReactorTime,
    ) -> None:
        self.setName("l4lb")
        self._views = views
        self._desired = desired
        self._plane = plane
        self._epoll = epoll
        self._inherit = inherit
        self._clock = clock
        self._moving = Moving(LINGER)
        self._timer: IDelayedCall | None = None
        self._wanted: Cell[Mapping[Listener, VipService]] = Cell({}, later)
        self.applied: Cell[Mapping[Listener, VipService]] = Cell({}, later)
        self.reconciler = reconciler(self._wanted, self.applied, self._round_ended)
        self._vip_zone = VipZone()
        self.apex = self._vip_zone.zone.apex
        self.zone: Cell[Zone] = Cell(self._vip_zone.zone, later)
        self._heard = False
        """Whether the VIP table has been delivered at all."""
        self._applied_once = False
        self._sure = False
        """Whether a round has ended since the views were synced."""
        self._unsubscribe: list[Callable[[], None]] = []

    def startService(self) -> None:
        """Follow the views; nothing is waited for."""
        super().startService()
        self._inherit()
        self._epoll.start()
        self._unsubscribe = [
            self._views.vips.subscribe(self._take_vips),
            self._views.unsynced.subscribe(self._take_unsynced),
            self.applied.subscribe(self._take_applied),
        ]

    def stopService(self) -> Deferred[None]:
        """Close all listeners and connections, after the round that runs."""
        super().stopService()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stopped: Deferred[None] = maybeDeferred(self.reconciler.stopService)
        return stopped.addCallback(self._close)

    def _close(self, _result: None) -> None:
        self._plane.close()
        self._epoll.close()

    def not_ready(self) -> str | None:
        """Why VIPs may not be relied on yet, or None."""
        return None if self._applied_once else NOT_APPLIED

    def _take_vips(self, vips: Mapping[str, Vip], changed: Changed) -> None:
        before = self._desired.services
        self._follow(before, self._desired.update(vips, changed))
        if not self._heard:
            # Only now: a round before it would take what another run left for unwanted.
            self._heard = True
            self.reconciler.startService()

    def _follow(self, before: Mapping[Listener, VipService], listeners: frozenset[Listener]) -> None:
        """Of these listeners the service is another one than before."""
        self._want(listeners | self._moving.take(before, self._desired.services, listeners, self._clock.seconds()))

    def _want(self, changed: frozenset[Listener]) -> None:
        services, kept = self._desired.services, self._moving.kept
        self._wanted.publish({**services, **kept} if kept else services, changed)
        self._plane.forget(self._wanted.value)
        due = self._moving.due()
        if self._timer is None and due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._expire)

    def _expire(self) -> None:
        """Give up the old listeners of names that moved long enough ago."""
        self._timer = None
        self._want(self._moving.expire(self._clock.seconds()))

    def _take_unsynced(self, reason: str | None, _changed: Changed) -> None:
        self._sure = False
        self._tell_reason()
        if reason is None:
            self.reconciler.wake()

    def _take_applied(self, applied: Mapping[Listener, VipService], changed: Changed) -> None:
        names = self._vip_zone.take_applied(applied, changed)
        self.zone.publish(self._vip_zone.zone, names)

    def _round_ended(self) -> None:
        before = self._desired.services
        if changed := self._desired.take_absent(self._plane.problems):
            self._follow(before, changed)
        if not self.reconciler.loop.settled:
            return
        self._applied_once = True
        if self._views.unsynced.value is None and not self._sure:
            self._sure = True
            # Not before: what is absent from views that are not whole may only be late.
            self._plane.sweep()
            self._tell_reason()

    def _tell_reason(self) -> None:
        reason = self._views.unsynced.value or (None if self._sure else NOT_APPLIED)
        if self._vip_zone.take_reason(reason):
            self.zone.publish(self._vip_zone.zone, None)
