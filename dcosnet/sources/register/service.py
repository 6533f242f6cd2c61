"""
The source `register` in the reactor: steps in order, on disk, then told.

Steps that arrive while the disk is busy are saved together by the next write.
What is acknowledged is on disk; what the disk refused did not happen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.errors import DcosnetError
from dcosnet.interfaces import ITaskSource
from dcosnet.io.files import off_reactor, write_atomically
from dcosnet.model.facts import Facts, Problem, SourceStatus
from dcosnet.model.node import Node
from dcosnet.model.task import Health
from dcosnet.sources.register.leases import Leases, dump, load
from dcosnet.sources.services import Reader

log = Logger()

T = TypeVar("T")

SOURCE = "register"
_FILE = "leases.json"
_WAITING_MAX = 1024


class BusyError(Exception):
    """More steps wait for the disk than are kept waiting."""


class StateError(DcosnetError):
    """The state on disk cannot be used at all; the node cannot start with it."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(path, error)
        self.path = path
        self.reason = error.strerror or str(error)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; move it away, or let this process read and write it"


@attrs.frozen
class Step:
    """A change of leases that waits: what it makes of them and what it answers, or fails with."""

    change: Callable[[Leases, float], tuple[Leases, Any]]
    answer: Deferred[Any]


@implementer(ITaskSource)
class RegisterSource(TwistedService):
    """Tells the services whose leases run. `save` is given for tests; it blocks and runs in a thread."""

    name = SOURCE

    def __init__(
        self,
        reactor: Any,
        state_dir: Path,
        node: Node,
        *,
        save: Callable[[Path, bytes], None] = write_atomically,
        off: Callable[[Any, Callable[[], None]], Deferred[None]] = off_reactor,
    ) -> None:
        self._reactor = reactor
        self._path = state_dir / SOURCE / _FILE
        self._node = node
        self._save = save
        self._off = off
        self.reader = Reader(SOURCE, node.name, node.address, extra=("ttl",))
        self._sink: Callable[[Facts], None] | None = None
        self._facts = Facts()
        self._changed_at: float | None = None
        self._problem: Problem | None = None
        self._waiting: list[Step] = []
        self._saving: Deferred[None] | None = None
        self._expiry: IDelayedCall | None = None
        self.leases = Leases()

    # ITaskSource

    def watch(self, sink: Callable[[Facts], None]) -> None:
        self._sink = sink

    def status(self) -> SourceStatus:
        return SourceStatus(
            synced=self._changed_at is not None,
            detail=f"leases in {self._path}",
            tasks=len(self._facts.tasks),
            changed_at=self._changed_at,
            problems=() if self._problem is None else (self._problem,),
        )

    # IService

    def privilegedStartService(self) -> None:
        """Read what was registered. Raises StateError where that, or its folder, cannot be used at all."""
        super().privilegedStartService()
        try:
            # A few kilobytes, read before anything is served.
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self.leases = self._restore()
        except OSError as error:
            raise StateError(self._path, error) from error

    def startService(self) -> None:
        super().startService()
        self._take(self.leases)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        return self._saving

    def do(self, change: Callable[[Leases, float], tuple[Leases, T]]) -> Deferred[T]:
        """
        Make a step: `change(leases, now)` gives the new leases and an answer.

        Fires with the answer once the new leases are on disk. Fails with
        OSError when the disk refuses them, and BusyError when it does not keep
        up; then nothing changed.
        """
        if not self.running or len(self._waiting) >= _WAITING_MAX:
            return fail(BusyError())
        answer: Deferred[T] = Deferred()
        self._waiting.append(Step(change, answer))
        if self._saving is None:
            self._work()
        return answer

    def _restore(self) -> Leases:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Leases()
        try:
            return load(data, self.reader)
        except ValueError as error:
            aside = self._path.with_suffix(".broken")
            self._path.replace(aside)
            self._problem = Problem(str(aside), f"{error}; what was in it is lost, so register again")
            log.error("{path} was put aside: it {reason}", path=aside, reason=error)
            return Leases()

    def _work(self) -> None:
        """Take all steps that wait and save what they lead to, if it is anything new."""
        steps, self._waiting = self._waiting, []
        now = self._reactor.seconds()
        leases = self.leases.expire(now)
        before = leases
        answers = []
        for step in steps:
            leases, answer = step.change(leases, now)
            answers.append(answer)
        if leases.by_id == before.by_id:
            self._saved(None, steps, answers, leases)
            return
        self._saving = self._off(self._reactor, partial(self._save, self._path, dump(leases)))
        self._saving.addBoth(self._saved, steps, answers, leases)

    def _saved(self, result: Failure | None, steps: list[Step], answers: list[Any], leases: Leases) -> None:
        self._saving = None
        if isinstance(result, Failure):
            log.error("{path} could not be written: {reason}", path=self._path, reason=result.getErrorMessage())
        else:
            self._take(leases)
        for step, answer in zip(steps, answers, strict=True):
            step.answer.callback(result if isinstance(result, Failure) else answer)
        if self._waiting and self._saving is None:
            self._work()

    def _take(self, leases: Leases) -> None:
        """These are the leases now: tell them, and wake up when the next one ends."""
        now = self._reactor.seconds()
        self.leases = leases.expire(now)
        tasks = {
            identity: lease.service.task(SOURCE, self._node.name, "lease", Health.UNKNOWN, now)
            for identity, lease in self.leases.by_id.items()
        }
        if self._changed_at is None or tasks != self._facts.tasks:
            self._facts = Facts(tasks)
            self._changed_at = now
            if self._sink is not None:
                self._sink(self._facts)
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due = self.leases.due()
        if due is not None and self.running:
            self._expiry = self._reactor.callLater(max(0.0, due - now), self._expire)

    def _expire(self) -> None:
        self._expiry = None
        ended = self.leases.by_id.keys() - self.leases.expire(self._reactor.seconds()).by_id.keys()
        for identity in sorted(ended):
            log.info("The lease of {task} ended", task=identity.task)
        self._take(self.leases)
