"""The real store on a clock of the test's own and a fragile disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from dcosnet.io.turns import Turns
from dcosnet.kv.journal import Journal
from dcosnet.kv.service import KeyValue
from dcosnet.testing.fragile_disk import FragileDisk


class StoreRig:
    """
    A started store of node "a", as the contract suite wants it.

    While `held` is true commits are kept back until `release`, so that several
    writes meet one fsync.
    """

    node = "a"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "kv"
        self.clock = Clock()
        self.now = 1_700_000_000.0
        """The host's time, which may also go back."""
        self.disk = FragileDisk()
        self.held = False
        self._commits: list[Callable[[], object]] = []
        self.start()

    def start(self) -> None:
        """Begin anew over what is in the directory."""
        self.journal = Journal(self.directory, self.disk)
        self.store = KeyValue(self.node, self.journal, lambda: self.now, Turns(self.clock).later, self._in_thread)
        self.store.privilegedStartService()
        self.store.startService()

    def turn(self) -> None:
        """Run what is due on the next turn."""
        self.clock.advance(0)

    def release(self) -> None:
        """Let the disk do what it was asked for."""
        commits, self._commits = self._commits, []
        for commit in commits:
            commit()

    def crash(self) -> None:
        """Lose power: what is not on disk by now will never be."""
        self._commits = []
        self.journal.close()
        self.clock = Clock()

    def stop(self) -> None:
        """Stop in order; all that is under way gets done."""
        self.held = False
        stopped: list[None] = []
        self.store.stopService().addCallback(stopped.append)
        self.turn()
        self.release()
        assert stopped, "the store did not stop"

    def restart(self) -> None:
        """Stop in order, and start."""
        self.stop()
        self.start()

    def _in_thread(self, commit: Callable[[], None]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._commits.append(lambda: maybeDeferred(commit).chainDeferred(done))
        if not self.held:
            self.release()
        return done
