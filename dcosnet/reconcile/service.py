"""
Drives a data plane towards a cell of what is wanted.

It knows nothing of what the plane carries: keys and values of a mapping. It
tells in a cell of its own what is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from dcosnet.errors import DataPlaneError
from dcosnet.interfaces import IDataPlane
from dcosnet.model.cell import Cell, Changed, Later
from dcosnet.model.metric import Histogram
from dcosnet.reconcile.diff import beside, changed_keys, part, patched, present
from dcosnet.reconcile.loop import Loop

log = Logger()

ROUND_BOUNDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Upper bounds, in seconds, of the histogram of rounds; 10 ms is what a change of the table should need at most."""


class Reconciler(Service):
    """
    Observe, plan, apply; publish what is there; again on changes, on failures, and every 30 s.

    `applied` holds of what is there what is wanted, by the desired value's keys,
    in the plane's values. A key is taken out of it, and its readers and theirs
    have been told, before the plane is asked to remove what it stands for; it
    comes in after the plane has it. `round_ended` is called after each round.
    """

    def __init__(
        self,
        name: str,
        plane: IDataPlane,
        desired: Cell[Mapping[Any, Any]],
        applied: Cell[Mapping[Any, Any]],
        *,
        clock: IReactorTime,
        rng: Random,
        later: Later,
        round_ended: Callable[[], None],
    ) -> None:
        self.setName(name)
        self._plane = plane
        self._desired = desired
        self._applied = applied
        self._clock = clock
        self._rng = rng
        self._later = later
        self._round_ended = round_ended
        self._timer: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._unsubscribe = lambda: None
        self.loop = Loop()
        self.rounds = 0
        self.seconds = Histogram(ROUND_BOUNDS)
        """How long rounds took."""
        self.failures = 0
        """Rounds in which the plane could not do something."""
        self.errors = 0
        """Rounds that ended in an error of ours; each is in the log."""
        self.problem: str | None = None
        """Why the last round failed."""

    def startService(self) -> None:
        """Begin with the first round on the next turn."""
        super().startService()
        self._unsubscribe = self._desired.subscribe(lambda _value, changed: self._want(changed))

    def stopService(self) -> Deferred[None]:
        """End; fires when the round that runs has ended. The plane is left as it is."""
        super().stopService()
        self._unsubscribe()
        self._cancel()
        if self._round is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._round.addBoth(lambda _result: done.callback(None))
        return done

    def wake(self) -> None:
        """Begin a round about all as soon as may be: what is there may have changed."""
        self._want(None)

    def _want(self, keys: Changed) -> None:
        self.loop.wanted(keys)
        self._schedule()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._cancel()
        due = self.loop.due()
        if due is None or not self.running:
            return
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._begin)

    def _begin(self) -> None:
        self._timer = None
        keys = self.loop.begin(self._clock.seconds())
        self._round = Deferred.fromCoroutine(self._guarded(keys))
        self._round.addCallback(self._ended)

    def _ended(self, _result: None) -> None:
        self._round = None
        self._round_ended()
        self._schedule()

    async def _guarded(self, keys: Changed) -> None:
        """A round; the catch-all of the reconcile loop (architecture section 5)."""
        self.rounds += 1
        began = self._clock.seconds()
        problem: str | None = None
        tried, owed = True, None
        try:
            refused, owed = await self._reconcile(keys)
            if refused is not None:
                self.failures += 1
                problem = str(refused)
        except Exception as error:  # noqa: BLE001 - see above
            self.errors += 1
            tried = False
            problem = f"{type(error).__name__}: {error}"
            log.failure("a round of {loop} broke", loop=self.name)
        now = self._clock.seconds()
        self.seconds.observe(max(0.0, now - began))
        if problem is None:
            self.loop.succeeded(now)
        else:
            self.loop.failed(now, self._rng.random(), tried=tried, owed=owed)
        self.problem = problem

    async def _reconcile(self, keys: Changed) -> tuple[DataPlaneError | None, Changed]:
        """
        One round about these keys, or all: the first thing that the plane could not do, and what is owed.

        A change costs what it concerns: nothing here walks through all there is
        for the sake of a few keys, but for copying the mapping of what is applied.
        """
        desired: Mapping[Any, Any] = self._desired.value
        if keys is not None:
            desired = part(desired, keys)
        actual = await self._plane.observe(keys)
        come = self._plane.plan(beside(desired, actual), actual)
        refused = await self._apply(come)
        if come:
            actual = await self._plane.observe(keys)
        there = present(desired, actual)
        go = self._plane.plan(there, actual)
        self._publish(there, keys)
        owed = changed_keys(desired, there) if refused is not None else frozenset()
        if go:
            await self._told()
            stays = await self._apply(go)
            if stays is not None:
                refused, owed = refused or stays, owed | (actual.keys() - desired.keys())
        return refused, owed or None

    async def _apply(self, changes: Sequence[Any]) -> DataPlaneError | None:
        if not changes:
            return None
        try:
            await self._plane.apply(changes)
        except DataPlaneError as error:
            return error
        return None

    def _publish(self, there: Mapping[Any, Any], keys: Changed) -> None:
        before = self._applied.value
        if keys is not None:
            changed = frozenset(key for key in keys if before.get(key) != there.get(key))
            there = patched(before, changed, there) if changed else before
        else:
            changed = changed_keys(before, there)
        self._applied.publish(there, changed)

    def _told(self) -> Deferred[None]:
        """
        Fires when the readers of `applied`, and the readers of what these publish, have been told.

        Deliveries are queued in order: ours comes after that of the first
        readers, and the second step after what they published meanwhile.
        """
        told: Deferred[None] = Deferred()
        self._later(lambda: self._later(lambda: told.callback(None)))
        return told
