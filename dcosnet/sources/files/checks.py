"""
When which service is checked, and what the answers make of its health.

Pure: `io/drive` gives the time and carries out the probes. A check begins
unhealthy, as Mesos does it: a service with a check gets no traffic until it
answered once. One good answer raises, two bad ones in a row lower: a service
comes as soon as it can serve, and a single lost packet does not take it away.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from enum import StrEnum

import attrs

from dcosnet.model.task import Health, TaskId
from dcosnet.sources.services import Check

RISE = 1
FALL = 2
AT_ONCE = 64

# A tenth either way spreads the checks of a file that was read in one moment.
_SPREAD = 0.2


class Result(StrEnum):
    """What became of a probe."""

    GOOD = "good"
    STATUS = "status"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    GARBAGE = "garbage"


@attrs.frozen
class Probe:
    """A probe to make now; `number` goes back with its outcome."""

    number: int
    task: TaskId
    check: Check


@attrs.frozen
class Outcome:
    """What became of a probe, with a word for people."""

    number: int
    result: Result
    detail: str = ""


@attrs.frozen
class HealthChanged:
    """A service rose or fell."""

    task: TaskId
    health: Health
    detail: str


@attrs.define
class _State:
    """A check that runs; `number` is its probe under way, None between probes."""

    check: Check
    health: Health = Health.UNHEALTHY
    good: int = 0
    bad: int = 0
    due: float = 0.0
    number: int | None = None


class Checks:
    """
    The schedule of all checks of this node.

    At most `at_once` probes are under way; what is due beyond that waits its
    turn. `jitter` gives numbers from 0 to 1.
    """

    def __init__(self, jitter: Callable[[], float], at_once: int = AT_ONCE) -> None:
        self._jitter = jitter
        self._at_once = at_once
        self._states: dict[TaskId, _State] = {}
        # (due, order, task): an entry whose time is no longer its task's is
        # stale and dropped when it comes up.
        self._queue: list[tuple[float, int, TaskId]] = []
        self._under_way: dict[int, tuple[TaskId, float]] = {}
        self._counter = 0
        self._output: list[Probe] = []
        self._events: list[HealthChanged] = []
        self.results = dict.fromkeys(Result, 0)

    def want(self, checks: Mapping[TaskId, Check], now: float) -> None:
        """
        These are the checks from now on. One that did not change goes on as it was.

        Where only the timing changed the health stays; where what is checked
        changed it begins anew.
        """
        for gone in self._states.keys() - checks.keys():
            del self._states[gone]
        for task, check in checks.items():
            state = self._states.get(task)
            if state is not None and state.check == check:
                continue
            fresh = _State(check)
            if state is not None and state.check.subject == check.subject:
                fresh.health = state.health
            self._states[task] = fresh
            self._enqueue(task, fresh, now)
        self._compact()
        self.tick(now)

    def health(self, task: TaskId) -> Health:
        """The last word of a task's check; unknown where there is none."""
        state = self._states.get(task)
        return Health.UNKNOWN if state is None else state.health

    def feed(self, data: Outcome, now: float) -> None:
        """Take the outcome of a probe."""
        task, started = self._under_way.pop(data.number)
        self.results[data.result] += 1
        state = self._states.get(task)
        if state is not None and state.number == data.number:
            state.number = None
            self._judge(task, state, data)
            spread = 1 - _SPREAD / 2 + _SPREAD * self._jitter()
            self._enqueue(task, state, max(now, started + state.check.interval * spread))
        self.tick(now)

    def due(self) -> float | None:
        """When the next probe begins; None while there is none, or none may begin."""
        self._drop_stale()
        if not self._queue or len(self._under_way) >= self._at_once:
            return None
        return self._queue[0][0]

    def tick(self, now: float) -> None:
        """Begin the probes that are due, the longest overdue first, as many as may."""
        while (due := self.due()) is not None and due <= now:
            _, _, task = heapq.heappop(self._queue)
            self._counter += 1
            state = self._states[task]
            state.number = self._counter
            self._under_way[self._counter] = (task, now)
            self._output.append(Probe(self._counter, task, state.check))

    def take_output(self) -> list[Probe]:
        """The probes to make, in order."""
        taken, self._output = self._output, []
        return taken

    def take_events(self) -> list[HealthChanged]:
        """What rose and fell, in order."""
        taken, self._events = self._events, []
        return taken

    def _judge(self, task: TaskId, state: _State, outcome: Outcome) -> None:
        if outcome.result is Result.GOOD:
            state.good, state.bad = state.good + 1, 0
        else:
            state.good, state.bad = 0, state.bad + 1
        health = state.health
        if state.good >= RISE:
            health = Health.HEALTHY
        elif state.bad >= FALL:
            health = Health.UNHEALTHY
        if health is not state.health:
            state.health = health
            self._events.append(HealthChanged(task, health, outcome.detail))

    def _enqueue(self, task: TaskId, state: _State, due: float) -> None:
        self._counter += 1
        state.due = due
        heapq.heappush(self._queue, (due, self._counter, task))

    def _drop_stale(self) -> None:
        while self._queue and self._stale(self._queue[0]):
            heapq.heappop(self._queue)

    def _stale(self, entry: tuple[float, int, TaskId]) -> bool:
        state = self._states.get(entry[2])
        return state is None or state.number is not None or state.due != entry[0]

    def _compact(self) -> None:
        """Stale entries far in the future would pile up under a file that keeps changing."""
        if len(self._queue) > 2 * len(self._states) + 64:
            self._queue = [entry for entry in self._queue if not self._stale(entry)]
            heapq.heapify(self._queue)
