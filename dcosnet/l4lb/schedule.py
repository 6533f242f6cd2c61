"""
Which backend gets the next flow.

Pure: the caller passes the time and a Random. A weight of zero drains; what rests
(`outliers`) is tried last.

The backends that a rule picks from lie ready in a pool, made at the first flow
and again when something about them changes, or has aged a second: for a VIP
without traffic nothing is made at all, and a pick costs the same whether ten
backends or a thousand are there.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from heapq import heapify, heapreplace
from itertools import accumulate
from math import exp, inf
from random import Random

import attrs

from dcosnet.l4lb.outliers import SLOW, SLOWER, Standing
from dcosnet.l4lb.tally import Reason, Tally
from dcosnet.model.traffic import Use
from dcosnet.model.vip import Backend

DECAY = 10.0
"""Seconds after which a latency that is not confirmed counts for 1/e; Finagle's and Minuteman's."""
FLOOR = 0.001
"""
Added to each latency. Kernels take connections, not programs, so what is under a
millisecond tells how near a backend is and nothing about its work.
"""
SLACK = 1.25
"""How much busier the first of two must be for the second to be taken: what noise decides would not follow weights."""
AGE = 1.0
"""Seconds after which latencies are looked at anew."""
_NEVER = -inf


class Pick(StrEnum):
    """A rule for picking."""

    LEAST = "least"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


@attrs.frozen
class BackendState:
    """
    What people see of one backend at one moment.

    `seconds` is how long the state lasts yet, 0 where it does not end by itself.
    `why` tells of what rests or is suspect. `share` is the part of its weight
    that counts. `latency`, in seconds, is the moving average of connect times,
    None without any. `rests` are those that are held against it. The tally is
    live, and not to be written to.
    """

    backend: Backend
    state: Use
    seconds: float
    why: str | None
    share: float
    latency: float | None
    active: int
    rests: int
    tally: Tally


@attrs.frozen
class Notice:
    """A backend began to rest, for so long and for that reason; or it returns, after 0 seconds."""

    backend: Backend
    seconds: float
    why: str


class Target:
    """A backend in use: how many flows it has, and how it fares."""

    __slots__ = (
        "active",
        "backend",
        "cost",
        "due",
        "gone",
        "sampled",
        "scale",
        "sockaddr",
        "standing",
        "step",
        "tally",
    )

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.sockaddr = _key(backend)
        self.active = 0
        """Flows in flight; whoever opens one counts it, also after the backend has left the table."""
        self.gone = False
        """Whether it is no backend here any more."""
        self.tally = Tally()
        self.standing: Standing | None = None
        """None while nothing is held against it."""
        self.cost = FLOOR
        """The moving average of connect times at `sampled`, and FLOOR."""
        self.sampled = _NEVER
        self.scale = self.step = 1.0
        """The inverse of its share, as a part of the average share and as it is, while in a pool."""
        self.due = 0.0
        """By round robin, whose is the least goes next."""

    def rank(self, now: float) -> int:
        """See `Standing.rank`."""
        return 0 if self.standing is None else self.standing.rank(now)

    def share(self, now: float) -> float:
        """How much it counts for, as a weight."""
        weight = self.backend.weight
        return weight if self.standing is None else weight * self.standing.share(now)


class _Pool:
    """Targets to pick from, each with its share; `mean` is the average share, of these or of more."""

    __slots__ = ("bounds", "heap", "mean", "targets", "total")

    def __init__(self, targets: Sequence[Target], now: float, mean: float | None = None) -> None:
        self.targets = targets
        shares = [target.share(now) for target in targets]
        self.total = sum(shares)
        self.mean = self.total / max(1, len(shares)) if mean is None else mean
        for target, share in zip(targets, shares, strict=True):
            target.step = 1.0 / share
            target.scale = self.mean / share
        even = not shares or min(shares) == max(shares)
        self.bounds = None if even else list(accumulate(shares))
        """Where each target's part of the total ends; None where all are equal."""
        self.heap: list[tuple[float, int, Target]] | None = None
        """By round robin, the order of turns; a due that is not its target's any more is put right when it comes up."""

    def draw(self, random: Callable[[], float]) -> int:
        """One by share."""
        if self.bounds is None:
            return int(random() * len(self.targets))
        return bisect(self.bounds, random() * self.total, 0, len(self.targets) - 1)

    def draw_other(self, random: Callable[[], float], one: int) -> int:
        """By share, one of the others; of uneven ones only."""
        assert self.bounds is not None
        bounds, last = self.bounds, len(self.targets) - 1
        begin = bounds[one - 1] if one else 0.0
        width = bounds[one] - begin
        place = random() * (self.total - width)
        other = bisect(bounds, place if place < begin else place + width, 0, last)
        if other != one:
            return other
        return one - 1 if one else 1  # rounding put it at the very edge


_EMPTY = _Pool((), 0.0)


def _silent(_notice: Notice) -> None:
    pass


class Schedule:
    """The backends of one listener, and the rule that picks among them."""

    __slots__ = (
        "_backends",
        "_choose",
        "_former",
        "_growing",
        "_late",
        "_leaving",
        "_pool",
        "_random",
        "_resting",
        "_stale",
        "_targets",
        "_usual",
        "notice",
    )

    def __init__(self, pick: Pick, rng: Random) -> None:
        self._choose: Callable[[_Pool, Callable[[], float]], Target] = {
            Pick.LEAST: self._least,
            Pick.ROUND_ROBIN: self._round_robin,
            Pick.RANDOM: self._by_share,
        }[pick]
        self._random = rng.random
        self.notice: Callable[[Notice], None] = _silent
        """Called when a backend begins to rest, and at the first flow after it did."""
        self._backends: Sequence[Backend] = ()
        self._targets: dict[tuple[str, int], Target] = {}
        self._pool = _EMPTY
        self._stale = _NEVER
        """When the pool has to be made anew."""
        self._growing: list[Target] = []
        """Whose share has to begin small, with the next pool."""
        self._resting: list[Target] = []
        self._usual = 0.0
        """The median of the targets' latencies, when last looked at."""
        self._late = inf
        """How long a connect takes that takes much longer than usual."""
        self._leaving: list[Target] = []
        self._former = Tally()

    def update(self, backends: Sequence[Backend]) -> None:
        """
        Take new backends; those that stay keep their flows and what is known of them.

        Whatever gets flows beside others that had them already begins with a small share.
        """
        self._backends = backends
        self._stale = _NEVER
        if self._targets:
            self._merge()

    def _merge(self) -> None:
        """Make targets of the backends; what goes leaves its counts."""
        old = self._targets
        targets: dict[tuple[str, int], Target] = {}
        stayed = False
        come = []
        for backend in self._backends:
            key = _key(backend)
            target = targets.get(key) or old.get(key)
            opened = bool(backend.weight)
            if target is None:
                target = Target(backend)
            elif target.backend.weight:
                stayed = stayed or opened
                opened = False
            target.backend = backend
            targets[key] = target
            if opened:
                come.append(target)
        self._targets = targets
        for key, target in old.items():
            if key not in targets:
                target.gone = True
                self._leaving.append(target)
        self._settle()
        self._growing += come if stayed else ()
        self._resting = [target for target in self._resting if not target.gone and target.backend.weight]

    @property
    def targets(self) -> Collection[Target]:
        """All backends, draining or not, once there was a flow, and none before; a live view."""
        return self._targets.values()

    @property
    def backends(self) -> Sequence[Backend]:
        """All backends, in their order, also before there was a flow."""
        return self._backends

    @property
    def leaving(self) -> Sequence[Target]:
        """Backends that are here no longer and have flows in flight; these still count."""
        self._settle()
        return self._leaving

    @property
    def former(self) -> Tally:
        """What backends counted that are here no longer and have no flow left."""
        self._settle()
        return self._former

    def _settle(self) -> None:
        for target in self._leaving:
            if not target.active:
                self._former.add(target.tally)
        self._leaving = [target for target in self._leaving if target.active]

    def pick(self, now: float, tried: Collection[Target] = ()) -> Target | None:
        """
        The backend for a new flow that was not tried for it; None when there is none.

        Never one whose weight is zero.
        """
        if now >= self._stale:
            self._gather(now)
        pool = self._pool
        targets = pool.targets
        if len(targets) > 1:
            target = self._choose(pool, self._random)
        elif targets:
            target = targets[0]
        else:
            return None
        return self._another(now, tried) if target in tried else target

    # --- what became of a flow ---

    def worked(self, target: Target, now: float, seconds: float) -> None:
        """A backend took a connection, so long after it was asked."""
        target.tally.took(seconds)
        late = seconds > self._late
        sample = FLOOR + (self._late if late else seconds)
        cost = target.cost
        if sample < cost:
            sample += (cost - sample) * exp((target.sampled - now) / DECAY)
        target.cost = sample
        target.sampled = now
        if late and seconds > SLOW:
            standing = self._stand(target)
            if now >= standing.until:
                standing.slow(now, seconds, self._usual)
                self._judge(target, standing, now)
        elif target.standing is not None:
            self._taken(target, target.standing)

    def answered(self, target: Target) -> None:
        """A backend answered a datagram."""
        if target.standing is not None:
            self._taken(target, target.standing)

    def failed(self, target: Target, now: float, reason: Reason) -> None:
        """A backend did not take a flow."""
        target.tally.failed(reason)
        standing = self._stand(target)
        if now >= standing.until:
            standing.failed(now, reason)
            self._judge(target, standing, now)

    def ended(self, target: Target, now: float, *, served: bool) -> None:
        """
        A connection ended.

        Not served is one that the backend ended or reset although the client
        had asked and was still there, without ever a byte of answer: what took
        it was a proxy before nobody. How else it ended is served.
        """
        if not served:
            self.failed(target, now, Reason.HUNG_UP)
        elif target.standing is not None and target.standing.served():
            self._stale = _NEVER

    def _stand(self, target: Target) -> Standing:
        if target.standing is None:
            target.standing = Standing()
        return target.standing

    def _taken(self, target: Target, standing: Standing) -> None:
        due = standing.due
        if standing.worked():
            self._stale = _NEVER
        if target in self._resting:
            self._release((target,))  # it was the last resort, and is there again
        elif due:
            # Only the number of those that rest kept it from resting: what
            # failed all may be over for all.
            self._release(tuple(self._resting))

    def _release(self, targets: Sequence[Target]) -> None:
        """End a rest early; not of those that hang up, of which a connect says nothing."""
        for target in targets:
            if target.standing is not None and not target.standing.hung_up:
                self._return(target)
                self._growing.append(target)
                self._stale = _NEVER

    def _judge(self, target: Target, standing: Standing, now: float) -> None:
        """After trouble: it may have to rest, if not too many do."""
        self._stale = _NEVER
        if not standing.due or target.gone:
            return
        self._let_back(now)
        opened = sum(1 for one in self._targets.values() if one.backend.weight)
        if target.backend.weight and len(self._resting) < opened // 2:
            self._resting.append(target)
            self.notice(Notice(target.backend, standing.rest(now), standing.why))

    # --- what there is to pick from ---

    def _let_back(self, now: float) -> None:
        """Tell of those whose rest has ended."""
        for target in tuple(self._resting):
            if target.standing is None or now >= target.standing.until:
                self._return(target)

    def _return(self, target: Target) -> None:
        self._resting.remove(target)
        self.notice(Notice(target.backend, 0.0, "" if target.standing is None else target.standing.why))

    def _gather(self, now: float) -> None:
        """Make the pool anew."""
        if not self._targets:
            self._merge()
        opened = [target for target in self._targets.values() if target.backend.weight]
        for target in self._growing:
            self._stand(target).grow(now)
        self._growing.clear()
        self._let_back(now)
        while len(self._resting) > len(opened) // 2:
            # Others have gone meanwhile: who would rest the shortest returns.
            soonest = min(self._resting, key=lambda one: one.standing.until if one.standing else now)
            self._stand(soonest).grow(now)
            self._return(soonest)
        self._look(now)
        self._stale = now + AGE
        for target in opened:
            standing = target.standing
            if standing is not None:
                if standing.settled(now):
                    target.standing = None
                else:
                    self._stale = min(self._stale, standing.changes(now))
        before = self._pool
        self._pool = _Pool(_foremost(opened, now), now)
        self._seat(before)

    def _another(self, now: float, tried: Collection[Target]) -> Target | None:
        """One that was not tried: of the pool, and else of all."""
        gone = set(tried)
        left = [target for target in self._pool.targets if target not in gone]
        if not left:
            left = [target for target in self._targets.values() if target.backend.weight and target not in gone]
            left = _foremost(left, now)
        pool = _Pool(left, now, self._pool.mean)
        if len(left) > 1:
            return self._choose(pool, self._random)
        return left[0] if left else None

    def _seat(self, before: _Pool) -> None:
        """Whoever comes into the pool takes a turn from now on, and none that it has missed."""
        if self._choose == self._round_robin:
            turn = min((target.due for target in before.targets), default=0.0)
            there = set(before.targets)
            for target in self._pool.targets:
                if target not in there:
                    target.due = max(target.due, turn + self._random() * target.step)

    def _look(self, now: float) -> None:
        """
        What latency is usual, and let those tend to it that were not confirmed since; unknown ones are as usual.

        Of an even number the usual one is the lower, so that of two it is the quicker one's.
        """
        targets = self._targets.values()
        known = [target.cost for target in targets if target.sampled > _NEVER]
        if not known:
            return
        known.sort()
        usual = known[(len(known) - 1) // 2]
        for target in targets:
            target.cost = usual + (target.cost - usual) * exp((target.sampled - now) / DECAY)
            if target.sampled > _NEVER:
                target.sampled = now
        self._usual = usual - FLOOR
        # One lost segment delays a connect by a second. Without a limit that
        # backend would be spared for a minute, at the others' expense; one that
        # is late again and again is to rest instead.
        self._late = usual * SLOWER

    # --- the rules ---

    def _least(self, pool: _Pool, random: Callable[[], float]) -> Target:
        """
        Of two at random by share, the first unless the second has clearly less to do.

        Two choices come close to the least of all without a scan, and do not
        send every newcomer to the one that has just come up. What a backend has
        to do is its latency times its flows, these by share. A latency that is
        not confirmed any more tends to the usual, as does one that was never
        measured: so what was slow is tried again, and nobody is flooded for
        being unknown.
        """
        targets = pool.targets
        if pool.bounds is None:
            count = len(targets)
            one = int(random() * count)
            other = int(random() * (count - 1))
            if other >= one:
                other += 1
        else:
            one = pool.draw(random)
            other = pool.draw_other(random, one)
        first, second = targets[one], targets[other]
        clearly = second.cost * (1.0 + second.active * second.scale) * SLACK < first.cost * (
            1.0 + first.active * first.scale
        )
        return second if clearly else first

    def _by_share(self, pool: _Pool, random: Callable[[], float]) -> Target:
        return pool.targets[pool.draw(random)]

    def _round_robin(self, pool: _Pool, _random: Callable[[], float]) -> Target:
        """
        Each in turn, as often as its share, spread evenly.

        Each flow carries its target on by the inverse of the share, and the
        hindmost goes next (earliest deadline first).
        """
        heap = pool.heap
        if heap is None:
            heap = pool.heap = [(target.due, place, target) for place, target in enumerate(pool.targets)]
            heapify(heap)
        while True:
            due, place, target = heap[0]
            if due == target.due:
                target.due = due + target.step
                heapreplace(heap, (target.due, place, target))
                return target
            heapreplace(heap, (target.due, place, target))

    # --- what people see ---

    def tell(self, now: float) -> tuple[BackendState, ...]:
        """How each backend fares, in their order; changes nothing."""
        return tuple(self._describe(backend, now) for backend in self._backends)

    def _describe(self, backend: Backend, now: float) -> BackendState:
        target = self._targets.get(_key(backend)) or Target(backend)
        standing = target.standing or Standing()
        if target in self._growing:
            standing = Standing()
            standing.grow(now)
        state, end, why = Use.IN_USE, now, None
        if not backend.weight:
            state = Use.DRAINING
        elif now < standing.until:
            state, end, why = Use.RESTING, standing.until, standing.why
        elif now < standing.suspected:
            state, end, why = Use.SUSPECT, standing.suspected, standing.why
        elif standing.share(now) < 1.0:
            state, end = Use.RETURNING, standing.grown
        latency = target.cost - FLOOR if target.sampled > _NEVER else None
        return BackendState(
            backend=backend,
            state=state,
            seconds=end - now,
            why=why,
            share=0.0 if state in (Use.DRAINING, Use.RESTING) else standing.share(now),
            latency=latency,
            active=target.active,
            rests=standing.rests(now),
            tally=target.tally,
        )


def _key(backend: Backend) -> tuple[str, int]:
    """What to connect to, and what a target is known by."""
    return str(backend.address), backend.port


def _foremost(targets: Sequence[Target], now: float) -> list[Target]:
    """Those that are tried first."""
    ranks = [target.rank(now) for target in targets]
    least = min(ranks, default=0)
    return [target for target, rank in zip(targets, ranks, strict=True) if rank == least]
