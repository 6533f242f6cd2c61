"""
What every IKeyValue keeps: the suite to run on a store of your own.

`class TestMine(key_value_contract(make))`, where `make(directory)` gives a started
`Rig`. What a store does when its disk refuses is no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from dcosnet.interfaces import IKeyValue
from dcosnet.model.cell import Changed
from dcosnet.model.entry import Entry, Lifetime

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE


class Rig(Protocol):
    """A store under test, with a clock that only `turn` moves."""

    node: str
    store: IKeyValue

    def turn(self) -> None:
        """Run what is due on the reactor's next turn, and what is then due at once, disk included."""

    def restart(self) -> None:
        """Stop the store, and let `store` be a new one over the same directory, started."""

    def stop(self) -> None:
        """Leave nothing open."""


class Reader:
    """A subscriber that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[Changed] = []
        self.entries: dict[str, Entry] = {}
        """Folded from the changed keys alone."""
        self.view: Mapping[str, Entry] = {}

    def receive(self, entries: Mapping[str, Entry], changed: Changed) -> None:
        """Take a delivery."""
        self.calls.append(changed)
        self.view = entries
        if changed is None:
            self.entries = dict(entries)
            return
        for key in changed:
            if key in entries:
                self.entries[key] = entries[key]
            else:
                self.entries.pop(key, None)


def outcome(deferred: Deferred[None]) -> str | BaseException:
    """ "waiting", "done", or what it failed with; ask no more after that."""
    if not deferred.called:
        return "waiting"
    results: list[Any] = []
    deferred.addBoth(results.append)
    return "done" if results[0] is None else results[0].value


def key_value_contract(make: Callable[[Path], Rig]) -> type:  # noqa: C901 - it is a list of tests
    """A class of tests for pytest; each gets a fresh store in a directory of its own."""

    class KeyValueContract:
        rig: Rig

        def setup_method(self) -> None:
            self.rigs: list[Rig] = []

        def teardown_method(self) -> None:
            for rig in self.rigs:
                rig.stop()

        def open(self, directory: Path) -> Rig:
            rig = make(directory)
            self.rigs.append(rig)
            return rig

        def test_it_provides_the_interface(self, tmp_path: Path) -> None:
            """Names and signatures are those of the interface."""
            verifyObject(IKeyValue, self.open(tmp_path).store)

        def test_a_write_is_readable_on_return(self, tmp_path: Path) -> None:
            """Nobody has to wait to read what he wrote, whatever its lifetime."""
            rig = self.open(tmp_path)
            for lifetime in Lifetime:
                done = rig.store.write({f"a/{lifetime}": b"1"}, lifetime)
                entry = rig.store.get(f"a/{lifetime}")
                assert entry is not None
                assert (entry.key, entry.owner, entry.value) == (f"a/{lifetime}", rig.node, b"1")
                assert entry.lifetime is lifetime
                assert entry.created == entry.written
                rig.turn()
                assert outcome(done) == "done"
            assert set(rig.store.entries("a/")) == {"a/lease", "a/durable"}

        def test_who_has_an_entry_of_a_key_is_told(self, tmp_path: Path) -> None:
            """Nobody, or this node."""
            rig = self.open(tmp_path)
            assert rig.store.owners("k") == set()
            rig.store.write({"k": b"1"}, LEASE)
            assert rig.store.owners("k") == {rig.node}
            rig.store.write({"k": None}, LEASE)
            assert rig.store.owners("k") == set()

        def test_a_lease_is_acknowledged_at_once(self, tmp_path: Path) -> None:
            """A lease asks nothing of the disk."""
            assert outcome(self.open(tmp_path).store.write({"k": b"v"}, LEASE)) == "done"

        def test_a_key_that_was_never_written_is_not_there(self, tmp_path: Path) -> None:
            """Absent is None, and deleting it is no error."""
            rig = self.open(tmp_path)
            assert rig.store.get("k") is None
            assert outcome(rig.store.write({"k": None}, LEASE)) == "done"
            assert rig.store.entries() == {}

        def test_versions_and_stamps_grow_with_each_write(self, tmp_path: Path) -> None:
            """Two writes of one moment are ordered too; the creation stays where it was."""
            rig = self.open(tmp_path)
            rig.store.write({"k": b"1"}, LEASE)
            first = rig.store.get("k")
            rig.store.write({"k": b"2"}, LEASE)
            second = rig.store.get("k")
            assert first is not None
            assert second is not None
            assert second.version > first.version
            assert second.written > first.written
            assert second.created == first.created

        def test_a_key_that_comes_back_is_created_anew(self, tmp_path: Path) -> None:
            """`created` is since the key was last absent."""
            rig = self.open(tmp_path)
            rig.store.write({"k": b"1"}, LEASE)
            first = rig.store.get("k")
            rig.store.write({"k": None}, LEASE)
            assert rig.store.get("k") is None
            rig.store.write({"k": b"1"}, LEASE)
            again = rig.store.get("k")
            assert first is not None
            assert again is not None
            assert again.created > first.created

        def test_an_equal_value_is_no_write(self, tmp_path: Path) -> None:
            """A source may tell the same for ever: nothing is written and nobody is told."""
            rig, reader = self.open(tmp_path), Reader()
            rig.store.write({"k": b"1"}, LEASE)
            before = rig.store.get("k")
            rig.store.subscribe("", reader.receive)
            rig.turn()
            rig.store.write({"k": b"1", "absent": None}, LEASE)
            rig.turn()
            assert rig.store.get("k") == before
            assert reader.calls == [None]

        def test_an_equal_value_of_another_lifetime_is_a_write(self, tmp_path: Path) -> None:
            """A key has one lifetime, that of its last write."""
            rig = self.open(tmp_path)
            rig.store.write({"k": b"1"}, LEASE)
            rig.store.write({"k": b"1"}, DURABLE)
            entry = rig.store.get("k")
            assert entry is not None
            assert entry.lifetime is DURABLE

        def test_entries_are_a_value_of_the_callers_own(self, tmp_path: Path) -> None:
            """What was read does not change later, and may be changed."""
            rig = self.open(tmp_path)
            rig.store.write({"a": b"1", "b": b"2"}, LEASE)
            for prefix in ("", "a"):
                entries = rig.store.entries(prefix)
                assert "a" in entries
                rig.store.write({"a": None}, LEASE)
                assert "a" in entries
                rig.store.write({"a": b"1"}, LEASE)

        def test_what_is_too_large_is_refused_as_a_whole(self, tmp_path: Path) -> None:
            """The error is a sentence, and the rest of the step is not written."""
            rig, reader = self.open(tmp_path), Reader()
            rig.store.subscribe("", reader.receive)
            rig.turn()
            for key, value in (("k" * 513, b""), ("\u20ac" * 171, b""), ("\ud800", b""), ("k", bytes((1 << 20) + 1))):
                try:
                    rig.store.write({"fits": b"1", key: value}, LEASE)
                except ValueError as error:
                    assert " " in str(error)  # noqa: PT017 - pytest is not imported here
                else:
                    raise AssertionError(f"{key[:20]!r} with {len(value)} bytes was taken")
            assert rig.store.entries() == {}
            rig.turn()
            assert reader.calls == [None]

        def test_what_just_fits_is_taken(self, tmp_path: Path) -> None:
            """512 bytes of key, 1 MiB of value."""
            rig = self.open(tmp_path)
            rig.store.write({"k" * 512: bytes(1 << 20)}, LEASE)
            assert len(rig.store.entries()) == 1

        def test_a_namespace_has_bounds(self, tmp_path: Path) -> None:
            """64 MiB in all; what makes room is always taken."""
            rig = self.open(tmp_path)
            rig.store.write({f"{index:04}": bytes((1 << 20) - 4) for index in range(64)}, LEASE)
            try:
                rig.store.write({"more": b""}, LEASE)
            except ValueError:
                pass
            else:
                raise AssertionError("a namespace may be of any size")
            rig.store.write({"0000": None, "more": b"1"}, LEASE)
            assert rig.store.get("more") is not None

        def test_a_namespace_has_at_most_65536_keys(self, tmp_path: Path) -> None:
            """However small they are."""
            rig = self.open(tmp_path)
            rig.store.write({str(index): b"" for index in range(65_536)}, LEASE)
            try:
                rig.store.write({"more": b""}, LEASE)
            except ValueError:
                pass
            else:
                raise AssertionError("a namespace may have any number of keys")
            rig.store.write({"0": b"1"}, LEASE)

        def test_a_reader_gets_all_on_the_next_turn_and_then_changes(self, tmp_path: Path) -> None:
            """None stands for everything; a reader is never entered by a writer."""
            rig, reader = self.open(tmp_path), Reader()
            rig.store.write({"a/1": b"1", "b/1": b"1"}, LEASE)
            rig.turn()
            rig.store.subscribe("a/", reader.receive)
            assert reader.calls == []
            rig.turn()
            assert reader.calls == [None]
            assert set(reader.entries) == {"a/1"}
            rig.store.write({"a/2": b"2", "b/2": b"2"}, LEASE)
            assert len(reader.calls) == 1
            rig.turn()
            assert reader.calls[1:] == [frozenset({"a/2"})]
            assert reader.entries == rig.store.entries("a/")

        def test_a_reader_gets_all_even_of_nothing(self, tmp_path: Path) -> None:
            """That there is nothing is an answer."""
            rig, reader = self.open(tmp_path), Reader()
            rig.store.subscribe("a/", reader.receive)
            rig.turn()
            assert reader.calls == [None]

        def test_changes_of_one_turn_come_as_one_call(self, tmp_path: Path) -> None:
            """Also those before the first delivery, and those of keys that came and went."""
            rig, reader = self.open(tmp_path), Reader()
            rig.store.subscribe("", reader.receive)
            rig.store.write({"a": b"1"}, LEASE)
            rig.turn()
            assert reader.calls == [None]
            rig.store.write({"b": b"1"}, LEASE)
            rig.store.write({"c": b"1"}, LEASE)
            rig.store.write({"c": None, "a": None}, LEASE)
            rig.turn()
            assert reader.calls[1:] == [frozenset({"a", "b", "c"})]
            assert set(reader.view) == {"b"}

        def test_the_view_of_a_reader_is_live(self, tmp_path: Path) -> None:
            """A mapping that was delivered says what is so now."""
            rig, reader = self.open(tmp_path), Reader()
            rig.store.subscribe("a", reader.receive)
            rig.turn()
            rig.store.write({"a": b"1"}, LEASE)
            assert set(reader.view) == {"a"}

        def test_a_reader_may_write(self, tmp_path: Path) -> None:
            """What it writes comes back on the turn after."""
            rig, reader = self.open(tmp_path), Reader()

            def copy(entries: Mapping[str, Entry], changed: Changed) -> None:
                reader.receive(entries, changed)
                rig.store.write({"b": entries["a"].value}, LEASE)

            rig.store.write({"a": b"1"}, LEASE)
            rig.store.subscribe("", copy)
            rig.turn()
            rig.turn()
            assert reader.entries == rig.store.entries()
            assert reader.calls[1:] == [frozenset({"b"})]

        def test_a_reader_that_ended_is_called_no_more(self, tmp_path: Path) -> None:
            """Not with what was due either; ending twice is no error."""
            rig, reader = self.open(tmp_path), Reader()
            end = rig.store.subscribe("", reader.receive)
            end()
            end()
            rig.store.write({"a": b"1"}, LEASE)
            rig.turn()
            assert reader.calls == []

        def test_durable_keys_survive_a_restart_and_leases_do_not(self, tmp_path: Path) -> None:
            """Value, creation and order are those of before; the version does not go back."""
            rig = self.open(tmp_path)
            rig.store.write({"lease": b"1"}, LEASE)
            rig.store.write({"durable": b"2", "gone": b"3"}, DURABLE)
            done = rig.store.write({"gone": None}, DURABLE)
            rig.turn()
            assert outcome(done) == "done"
            before = rig.store.get("durable")
            rig.restart()
            assert rig.store.entries() == {"durable": before}
            rig.store.write({"durable": b"4"}, DURABLE)
            after = rig.store.get("durable")
            assert before is not None
            assert after is not None
            assert after.version > before.version
            assert after.created == before.created
            rig.turn()

        def test_a_durable_key_that_became_a_lease_does_not_come_back(self, tmp_path: Path) -> None:
            """What was acknowledged to be replaced is replaced, also after a restart."""
            rig = self.open(tmp_path)
            rig.store.write({"k": b"1"}, DURABLE)
            rig.turn()
            done = rig.store.write({"k": b"2"}, LEASE)
            rig.turn()
            assert outcome(done) == "done"
            rig.restart()
            assert rig.store.entries() == {}

        def test_deleting_a_durable_key_is_durable_whatever_is_said(self, tmp_path: Path) -> None:
            """The lifetime that counts is the one that the key has."""
            rig = self.open(tmp_path)
            rig.store.write({"k": b"1"}, DURABLE)
            rig.turn()
            rig.store.write({"k": None}, LEASE)
            rig.turn()
            rig.restart()
            assert rig.store.entries() == {}

    return KeyValueContract
