"""What every ITaskSource keeps: subclass `TaskSourceContract` and give the fixture `rig`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest
from zope.interface.verify import verifyObject

from dcosnet.interfaces import ITaskSource
from dcosnet.model.facts import Facts


class SourceRig(Protocol):
    """A source with the world that it tells of. Each step returns once the source had its time."""

    source: ITaskSource

    def start(self) -> None:
        """Start the source in a world where it can sync, with no service yet."""

    def appear(self, name: str) -> None:
        """A service of this name comes into the world."""

    def vanish(self, name: str) -> None:
        """The service of this name goes out of the world."""

    def touch(self, name: str) -> None:
        """The world says of this service again what it said before."""


class TaskSourceContract:
    """The laws; `rig` gives a fresh one each time."""

    @pytest.fixture
    def told(self, rig: SourceRig) -> list[Facts]:
        """All facts that the source told, in order."""
        told: list[Facts] = []
        rig.source.watch(told.append)
        return told

    @pytest.fixture
    def names(self, told: list[Facts]) -> Callable[[], list[str]]:
        """The names of the tasks told last."""
        return lambda: sorted(task.name for task in told[-1].tasks.values())

    def test_it_provides_the_interface(self, rig: SourceRig) -> None:
        """Every attribute and signature is there."""
        assert verifyObject(ITaskSource, rig.source)

    def test_it_is_silent_until_it_started(self, rig: SourceRig, told: list[Facts]) -> None:
        """Watching is no reading: absent is not empty."""
        assert told == []
        assert not rig.source.status().synced

    def test_an_empty_world_is_told_once_it_was_read(self, rig: SourceRig, told: list[Facts]) -> None:
        """Empty facts are a statement, made when it is known to be true."""
        rig.start()
        assert [dict(facts.tasks) for facts in told] == [{}]
        assert rig.source.status().synced

    def test_facts_are_whole(self, rig: SourceRig, names: Callable[[], list[str]]) -> None:
        """Each telling holds everything, so that a reader needs no memory."""
        rig.start()
        rig.appear("one")
        rig.appear("two")
        assert names() == ["one", "two"]
        rig.vanish("one")
        assert names() == ["two"]
        assert rig.source.status().tasks == 1

    def test_what_was_told_is_not_changed_later(self, rig: SourceRig, told: list[Facts]) -> None:
        """Facts are values: the reader may keep them."""
        rig.start()
        rig.appear("one")
        kept, copy = told[-1], dict(told[-1].tasks)
        rig.vanish("one")
        assert kept.tasks == copy

    def test_what_did_not_change_is_not_told(self, rig: SourceRig, told: list[Facts]) -> None:
        """A renewal or a touched file would otherwise rewrite every key of the store."""
        rig.start()
        rig.appear("one")
        count = len(told)
        rig.touch("one")
        assert len(told) == count

    def test_a_task_says_whose_it_is(self, rig: SourceRig, told: list[Facts]) -> None:
        """Provenance names the source, and the identity is the key of the mapping."""
        rig.start()
        rig.appear("one")
        ((identity, task),) = told[-1].tasks.items()
        assert (task.id, task.provenance.source) == (identity, rig.source.name)
