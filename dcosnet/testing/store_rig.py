"""The real store on a clock of the test's own and a disk that fails when told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from dcosnet.io.turns import Turns
from dcosnet.kv.service import KeyValue
from dcosnet.testing.fragile_disk import FragileDisk
from dcosnet.testing.memory_disk import MemoryDisk, PowerCut


class StoreRig:
    """
    A started store, as the contract suite wants it; of node "a" if no other is named.

    While `held` is true commits are kept back until `release`, so that several
    writes meet one fsync.
    """

    def __init__(self, directory: Path, disk: FragileDisk | MemoryDisk | None = None, node: str = "a") -> None:
        self.node = node
        self.directory = directory / "kv"
        self.now = 1_700_000_000.0
        """The host's time, which may also go back."""
        self.disk = FragileDisk() if disk is None else disk
        self.held = False
        self.dead = False
        """Whether a disk in memory cut the power."""
        self.recovers = False
        """Whether a start asks other nodes what they know, until the test says that it has recovered."""
        self.start()

    def start(self) -> None:
        """Begin anew over what is in the directory."""
        self.dead = False
        self.clock = Clock()
        self._commits: list[Callable[[], object]] = []
        self.store = KeyValue(
            self.node,
            self.directory,
            self.disk,
            lambda: self.now,
            Turns(self.clock).later,
            self.clock.callLater,
            self._in_thread,
        )
        self.store.privilegedStartService()
        if self.recovers:
            self.store.recover()
        self.store.startService()
        self.turn()

    def turn(self) -> None:
        """Run what is due on the next turn."""
        self.clock.advance(0)

    def release(self) -> None:
        """Let the disk do what it was asked for."""
        commits, self._commits = self._commits, []
        for commit in commits:
            commit()

    def crash(self, rng: Random | None = None) -> None:
        """Lose power: what is not on disk by now will never be. A disk in memory needs chance for that."""
        self._commits = []
        if isinstance(self.disk, MemoryDisk):
            self.disk.crash(rng or Random(1))
        else:
            self.store.journal.close()
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
        self._commits.append(lambda: self._run(commit, done))
        if not self.held:
            self.release()
        return done

    def _run(self, commit: Callable[[], None], done: Deferred[None]) -> None:
        def run() -> None:
            try:
                commit()
            except PowerCut:
                self.dead = True

        ran = maybeDeferred(run)
        if not self.dead:  # a thread that died with its host tells nobody
            ran.chainDeferred(done)
