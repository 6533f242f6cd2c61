"""One reader of the store: what it sees of it, and what it has not yet been told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from dcosnet.model.cell import Changed, Later
from dcosnet.model.entry import Entry

Receive = Callable[[Mapping[str, Entry], Changed], None]


class Subscription:
    """
    The live entries of a prefix, delivered on the next turn when they change.

    It has an index of its own: a change costs the same however many entries
    there are. Not a Cell, because that joins frozen sets: n publications in a
    turn would cost n squared.
    """

    def __init__(self, prefix: str, receive: Receive, live: Mapping[str, Entry], later: Later) -> None:
        self._prefix = prefix
        self._receive: Receive | None = receive
        self._entries = {key: entry for key, entry in live.items() if key.startswith(prefix)}
        self._view = MappingProxyType(self._entries)
        self._later = later
        self._changed: set[str] = set()
        self._all = True
        self._scheduled = False
        self._schedule()

    def note(self, changed: Iterable[str], live: Mapping[str, Entry]) -> None:
        """Take over what changed; the reader hears of it on the next turn."""
        before = len(self._changed)
        for key in changed:
            if not key.startswith(self._prefix):
                continue
            self._changed.add(key)
            if key in live:
                self._entries[key] = live[key]
            else:
                self._entries.pop(key, None)
        if len(self._changed) > before:
            self._schedule()

    def end(self) -> None:
        """Call the reader no more, also not with what is already due."""
        self._receive = None

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._later(self._deliver)

    def _deliver(self) -> None:
        changed: Changed = None if self._all else frozenset(self._changed)
        self._all = self._scheduled = False
        self._changed = set()
        if self._receive is not None:
            self._receive(self._view, changed)
