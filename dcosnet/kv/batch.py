"""Durable writes that go to disk together: what they come to, and how to take them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dcosnet.kv.store import Step
from dcosnet.model.entry import Entry, Lifetime


class Batch:
    """
    The steps that share one fsync.

    Bounded by the limits of the namespace and not by the number of writes:
    only the last value of a key is kept, and the first one before.
    """

    __slots__ = ("before", "changes", "keys", "version")

    def __init__(self) -> None:
        self.version = 0
        self.keys: set[str] = set()
        """All keys of its steps, leases too: a step is taken back as a whole."""
        self.changes: dict[str, Entry | None] = {}
        """For the journal: the durable entries, and None for keys that are to be gone from it."""
        self.before: dict[str, Entry | None] = {}
        """What stood in the namespace before the first of the steps."""

    def add(self, step: Step) -> None:
        """Take in the next step."""
        for key, entry in step.delta.changes.items():
            durable = entry is not None and entry.lifetime is Lifetime.DURABLE
            before = self.before.setdefault(key, step.before[key])
            if durable or key in self.changes or (before is not None and before.lifetime is Lifetime.DURABLE):
                self.changes[key] = entry if durable else None
            self.keys.add(key)

    def delete(self, keys: Iterable[str]) -> None:
        """Take in that keys are to be gone which are not here, but may be found while this node recovers."""
        for key in keys:
            self.before.setdefault(key, None)
            self.changes[key] = None
            self.keys.add(key)

    def rebase(self, found: Mapping[str, Entry]) -> None:
        """Let these have stood there before, and not nothing."""
        for key in self.before.keys() & found.keys():
            self.before[key] = found[key]
            self.changes.setdefault(key, None)

    def land(self) -> None:
        """It is on disk: what it was made of is not needed any more."""
        self.changes, self.before = {}, {}
