"""
One value that changes, with its readers.

A cell is a constructor argument: what reads what is visible where the parts are
made. It never compares values; the publisher says which keys changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Changed = frozenset[Any] | None
"""The keys that changed, as the value has them; None when any may have."""

Later = Callable[[Callable[[], None]], None]
"""Runs a function on the next turn (`io/turns`)."""


class _Reader(Generic[T]):
    __slots__ = ("pending", "receive", "scheduled")

    def __init__(self, receive: Callable[[T, Changed], None]) -> None:
        self.receive: Callable[[T, Changed], None] | None = receive
        # Grows in place: a thousand publications in a turn cost a thousand
        # unions of what each of them changed, not of all that came before.
        self.pending: set[Any] | None = None
        self.scheduled = False


class Cell(Generic[T]):
    """
    A value with a revision, delivered to its readers on the next turn.

    Readers are never entered while a publisher runs. Several publications
    before a delivery arrive as one, with the union of their changed keys.
    """

    def __init__(self, value: T, later: Later) -> None:
        self._value = value
        self._revision = 0
        self._later = later
        self._readers: list[_Reader[T]] = []

    @property
    def value(self) -> T:
        """What was published last."""
        return self._value

    @property
    def revision(self) -> int:
        """How often it was published; starts at 0."""
        return self._revision

    def publish(self, value: T, changed: Changed = None) -> None:
        """Take a new value. An empty `changed` is no publication."""
        self._value = value
        if changed is not None and not changed:
            return
        self._revision += 1
        for reader in self._readers:
            self._mark(reader, changed)

    def subscribe(self, receive: Callable[[T, Changed], None]) -> Callable[[], None]:
        """
        Call `receive(value, changed)` next turn with everything, then on changes.

        Returns what ends the subscription; after it `receive` is not called,
        also not by a delivery that was already due.
        """
        reader = _Reader(receive)
        self._readers.append(reader)
        self._mark(reader, None)

        def unsubscribe() -> None:
            reader.receive = None
            if reader in self._readers:
                self._readers.remove(reader)

        return unsubscribe

    def _mark(self, reader: _Reader[T], changed: Changed) -> None:
        if not reader.scheduled:
            reader.scheduled = True
            reader.pending = None if changed is None else set(changed)
            self._later(lambda: self._deliver(reader))
        elif changed is None:
            reader.pending = None
        elif reader.pending is not None:
            reader.pending |= changed

    def _deliver(self, reader: _Reader[T]) -> None:
        pending, reader.pending, reader.scheduled = reader.pending, None, False
        if reader.receive is not None:
            reader.receive(self._value, None if pending is None else frozenset(pending))
