"""
Which backend gets the next flow.

Pure: the caller passes the time and a Random. A weight of zero drains; backends
that failed lately (`health`) are tried last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from random import Random

from dcosnet.l4lb.health import Health
from dcosnet.l4lb.tally import Reason, Tally
from dcosnet.model.net import Endpoint
from dcosnet.model.vip import Backend


class Pick(StrEnum):
    """A rule for picking."""

    LEAST = "least"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


class Target:
    """A backend in use: how many flows it has, and how it fares."""

    __slots__ = ("active", "backend", "credit", "gone", "health", "sockaddr", "tally")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.sockaddr = (str(backend.address), backend.port)
        self.active = 0
        """Flows in flight; whoever opens one counts it, also after the backend has left the table."""
        self.gone = False
        """Whether it is no backend here any more."""
        self.credit = 0
        self.health = Health()
        self.tally = Tally()


class Schedule:
    """The backends of one listener, and the rule that picks among them."""

    def __init__(self, pick: Pick, rng: Random) -> None:
        self._choose: Callable[[Sequence[Target]], Target] = {
            Pick.LEAST: self._least,
            Pick.ROUND_ROBIN: self._round_robin,
            Pick.RANDOM: self._random,
        }[pick]
        self._rng = rng
        self._targets: dict[Endpoint, Target] = {}
        self._open: tuple[Target, ...] = ()
        self._troubled = 0.0
        """Until when some backend may be suspect."""
        self.former = Tally()
        """What backends counted that are here no longer; what their last connections move is not in it."""

    def update(self, backends: Sequence[Backend]) -> None:
        """Take new backends; those that stay keep their flows and their health."""
        targets: dict[Endpoint, Target] = {}
        for backend in backends:
            target = targets.get(backend.endpoint) or self._targets.get(backend.endpoint) or Target(backend)
            target.backend = backend
            targets[backend.endpoint] = target
        for endpoint, target in self._targets.items():
            if endpoint not in targets:
                target.gone = True
                self.former.add(target.tally)
        self._targets = targets
        self._open = tuple(target for target in targets.values() if target.backend.weight)

    def __contains__(self, target: Target) -> bool:
        """Whether it is still one of the backends, draining or not."""
        return self._targets.get(target.backend.endpoint) is target

    def pick(self, now: float, tried: Collection[Target] = ()) -> Target | None:
        """
        The backend for a new flow that was not tried for it; None when there is none.

        Never one whose weight is zero.
        """
        left: Sequence[Target] = self._open
        if tried:
            gone = set(tried)
            left = [target for target in left if target not in gone]
        if len(left) > 1 and now < self._troubled:
            left = [target for target in left if not target.health.suspect(now)] or left
        if not left:
            return None
        return left[0] if len(left) == 1 else self._choose(left)

    @property
    def targets(self) -> Collection[Target]:
        """All backends, draining or not; a live view."""
        return self._targets.values()

    def worked(self, target: Target, _now: float, seconds: float) -> None:
        """A backend took a connection, so long after it was asked."""
        target.health.worked()
        target.tally.took(seconds)

    def answered(self, target: Target) -> None:
        """A backend answered a datagram."""
        target.health.worked()

    def failed(self, target: Target, now: float, reason: Reason) -> None:
        """A backend did not take a flow."""
        target.tally.failures[reason] += 1
        target.health.failed(now)
        self._troubled = max(self._troubled, target.health.until)

    def _least(self, targets: Sequence[Target]) -> Target:
        """
        Of two at random, the one with fewer flows for its weight.

        Two choices come close to the least of all without a scan, and do not
        send every newcomer to the one that has just come up.
        """
        random = self._rng.random
        count = len(targets)
        one = int(random() * count)
        other = int(random() * (count - 1))
        if other >= one:
            other += 1
        first, second = targets[one], targets[other]
        behind = (second.active + 1) * first.backend.weight < (first.active + 1) * second.backend.weight
        return second if behind else first

    def _random(self, targets: Sequence[Target]) -> Target:
        return self._rng.choices(targets, [target.backend.weight for target in targets])[0]

    def _round_robin(self, targets: Sequence[Target]) -> Target:
        """
        Each in turn, as often as its weight, spread evenly.

        The smooth rule: everyone earns its weight, the richest goes and pays
        what all have earned.
        """
        total = 0
        best = targets[0]
        for target in targets:
            weight = target.backend.weight
            total += weight
            target.credit += weight
            if target.credit > best.credit:
                best = target
        best.credit -= total
        return best
