"""
Keeps other nodes' durable entries on this disk, and tells when they are there.

Costs nobody anything but itself: what the disk refuses is tried again later,
and what was not written when the node stops is fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.kv.copies import Copies
from dcosnet.kv.store import Copy, News
from dcosnet.model.cell import Later
from dcosnet.model.delta import Known

log = Logger()

RETRY_SECONDS = 10.0

InThread = Callable[[Callable[[], None]], "Deferred[None]"]
"""Runs a blocking function elsewhere; called with one at a time for each file."""


class Timer(Protocol):
    """What `CallLater` gave, as Twisted's IDelayedCall."""

    def cancel(self) -> None:
        """Do not call."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after some seconds."""


class Copier:
    """
    Gathers what changed while a commit is under way, so that it goes together.

    Bounded by what the store knows: names and keys are kept here, and no values.
    """

    def __init__(
        self,
        copies: Copies,
        copy: Callable[[str, Iterable[str] | None], Copy | None],
        later: Later,
        call_later: CallLater,
        in_thread: InThread,
    ) -> None:
        self.copies = copies
        self.commits = self.refused = 0
        """How many copies the disk took, and refused."""
        self._copy = copy
        self._later = later
        self._call_later = call_later
        self._in_thread = in_thread
        self._waiting: dict[str, set[str] | None] = {}
        self._scheduled = self._flying = self._stopped = False
        self._retry: Timer | None = None
        self._idle: list[Deferred[None]] = []
        self._followers: list[Callable[[str, Known], None]] = []

    @property
    def pending(self) -> int:
        """Owners of whom something is not on disk yet."""
        return len(self._waiting)

    @property
    def refusing(self) -> bool:
        """Whether the disk refused the last."""
        return self._retry is not None

    def note(self, owner: str, news: News) -> None:
        """Let what this brought be on disk."""
        if news.durable is None or news.durable or (news.settled and owner in self.copies):
            self._want(owner, news.durable)

    def drop(self, owner: str) -> None:
        """Let there be nothing of an owner that is forgotten."""
        if owner in self.copies or owner in self._waiting:
            self._want(owner, None)

    def follow(self, stored: Callable[[str, Known], None]) -> Callable[[], None]:
        """Call `stored(owner, known)` when its durable entries up to it are on disk. Returns what ends it."""
        self._followers.append(stored)

        def end() -> None:
            if stored in self._followers:
                self._followers.remove(stored)

        return end

    def stop(self) -> Deferred[None]:
        """Begin nothing more; fires when nothing is under way."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self._flying:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _want(self, owner: str, keys: Iterable[str] | None) -> None:
        wanted = self._waiting.setdefault(owner, set())
        if keys is None or wanted is None:
            self._waiting[owner] = None
        else:
            wanted.update(keys)
        if not (self._scheduled or self._flying or self._stopped or self._retry):
            self._scheduled = True
            self._later(self._fly)

    def _fly(self) -> None:
        self._scheduled = False
        if self._stopped or self._flying or not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        copies = {owner: self._copy(owner, keys) for owner, keys in waiting.items()}
        refused: dict[str, OSError] = {}
        self._flying = True
        self._in_thread(lambda: refused.update(self.copies.commit(copies))).addCallbacks(
            lambda _: self._landed(copies, refused), lambda failure: self._crashed(copies, failure)
        )

    def _crashed(self, copies: Mapping[str, Copy | None], failure: Failure) -> None:
        log.failure("copies in {path} failed", failure, path=str(self.copies.directory))
        self._landed(copies, dict.fromkeys(copies, OSError(str(failure.value))))

    def _landed(self, copies: Mapping[str, Copy | None], refused: Mapping[str, OSError]) -> None:
        self._flying = False
        self.commits += len(copies) - len(refused)
        self.refused += len(refused)
        for owner in refused:
            self._waiting[owner] = None
        if refused and not self._stopped:
            reason = next(iter(refused.values()))
            log.error(
                "{path} refuses {count} copies of other nodes' keys, and is tried again: {reason}",
                path=str(self.copies.directory),
                count=len(refused),
                reason=reason.strerror or str(reason),
            )
            self._retry = self._call_later(RETRY_SECONDS, self._again)
        else:
            self._fly()
        idle, self._idle = self._idle, []
        for waiter in idle:
            waiter.callback(None)
        for owner, copy in copies.items():
            if copy is not None and owner not in refused:
                for stored in tuple(self._followers):
                    stored(owner, copy.known)

    def _again(self) -> None:
        self._retry = None
        self._fly()
