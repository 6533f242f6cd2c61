"""
What every IReplica keeps: the suite to run on a store of your own.

`class TestMine(replica_contract(make))`, where `make(directory)` gives a started
`Rig` of a node "a" that has a disk and does not recover. What only a test of the
store's own disk can show is no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from zope.interface.verify import verifyObject

from dcosnet.errors import PeerError
from dcosnet.interfaces import IKeyValue, IReplica
from dcosnet.model.delta import NOTHING, Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.member import MemberState
from dcosnet.model.stamp import Stamp
from dcosnet.testing.contracts.keyvalue import outcome

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE

WHOLE = 1 << 40
"""A limit that cuts nothing."""


class Store(IKeyValue, IReplica):
    """Both ends of a store."""


class Rig(Protocol):
    """A store under test, with a clock that only `turn` moves."""

    node: str
    store: Store

    def turn(self) -> None:
        """Run what is due on the reactor's next turn, and what is then due at once, disk included."""

    def stop(self) -> None:
        """Leave nothing open."""


def delta(
    owner: str,
    values: Mapping[str, bytes | None],
    version: int,
    since: int = 0,
    generation: int = 1,
    lifetime: Lifetime = LEASE,
    *,
    settled: bool = True,
    bare: bool = False,
) -> Delta:
    """What an owner says of its keys, all as of one version."""
    stamp = Stamp(1_700_000_000_000 + version, 0, owner)
    changes = {
        key: None if value is None else Entry(key, owner, value, lifetime, version, stamp, stamp)
        for key, value in values.items()
    }
    return Delta(owner, generation, since, version, changes, settled, bare)


def replica_contract(make: Callable[[Path], Rig]) -> type:  # noqa: C901 - it is a list of tests
    """A class of tests for pytest; each gets a fresh store in a directory of its own."""

    class ReplicaContract:
        def setup_method(self) -> None:
            self.rigs: list[Rig] = []

        def teardown_method(self) -> None:
            for rig in self.rigs:
                rig.stop()

        def open(self, directory: Path) -> Store:
            self.rig = make(directory)
            self.rigs.append(self.rig)
            return self.rig.store

        def test_it_provides_the_interface(self, tmp_path: Path) -> None:
            """Names and signatures are those of the interface."""
            store = self.open(tmp_path)
            verifyObject(IReplica, store)
            assert store.node == self.rig.node

        def test_what_is_written_here_leads_another_store_on(self, tmp_path: Path) -> None:
            """From nothing to all, and from each version to the next."""
            store = self.open(tmp_path)
            store.write({"k": b"1", "gone": b"1"}, LEASE)
            before = store.known()["a"]
            assert before.generation == store.generation
            store.write({"gone": None}, LEASE)
            store.write({"l": b"2"}, DURABLE)
            store.settle()
            whole, step = store.missing("a", NOTHING, WHOLE), store.missing("a", before, WHOLE)
            assert whole is not None
            assert step is not None
            assert {key for key, entry in whole.changes.items() if entry is not None} == {"k", "l"}
            assert {key: entry and entry.value for key, entry in step.changes.items()} == {"gone": None, "l": b"2"}
            assert whole.known == step.known == store.known()["a"] > before
            assert (whole.since, step.since) == (0, before.version)
            assert whole.settled
            assert not whole.bare
            assert store.missing("a", store.known()["a"], WHOLE) is None
            assert store.missing("nobody", NOTHING, WHOLE) is None

        def test_settling_twice_is_settling_once(self, tmp_path: Path) -> None:
            """Nobody is told again."""
            store = self.open(tmp_path)
            store.settle()
            before = store.known()["a"]
            store.settle()
            assert store.known()["a"] == before

        def test_what_was_taken_is_read_and_passed_on(self, tmp_path: Path) -> None:
            """Once; what was missed, is older or is this node's own is not taken."""
            store = self.open(tmp_path)
            assert store.take(delta("b", {"k": b"1"}, 3))
            entry = store.get("k")
            assert entry is not None
            assert (entry.owner, entry.value) == ("b", b"1")
            passed = store.missing("b", NOTHING, WHOLE)
            assert passed is not None
            assert passed == delta("b", {"k": b"1"}, 3)
            for other in (
                delta("b", {"k": b"1"}, 3),
                delta("b", {"k": b"0"}, 2),
                delta("b", {"k": b"0"}, 9, 8),
                delta("b", {"k": b"0"}, 9, 3, generation=2),
                delta("a", {"k": b"0"}, 9, generation=1 << 60),
            ):
                assert not store.take(other)
            assert store.take(delta("b", {"k": None}, 4, 3))
            assert store.get("k") is None
            assert not store.take(delta("b", {"k": b"1"}, 3))
            assert store.get("k") is None

        def test_what_is_beyond_a_limit_is_not_taken(self, tmp_path: Path) -> None:
            """Nothing of it; and the error is a sentence."""
            store = self.open(tmp_path)
            for key, value in (("k" * 513, b""), ("k", bytes((1 << 20) + 1))):
                try:
                    store.take(delta("b", {"fits": b"", key: value}, 1))
                except PeerError as error:
                    assert " " in str(error)  # noqa: PT017 - pytest is not imported here
                else:
                    raise AssertionError("it was taken")
            assert store.entries() == {}

        def test_who_follows_hears_of_each_change_at_once(self, tmp_path: Path) -> None:
            """And of nothing else; not any more once he has ended it."""
            store, heard = self.open(tmp_path), list[str]()
            end = store.follow(heard.append)
            store.write({"k": b"1"}, LEASE)
            store.write({"k": b"1"}, LEASE)
            store.take(delta("b", {"k": b"1"}, 3))
            store.take(delta("b", {"k": b"1"}, 3))
            assert heard == ["a", "b"]
            end()
            end()
            store.write({"k": b"2"}, LEASE)
            assert heard == ["a", "b"]

        def test_the_dead_have_no_leases(self, tmp_path: Path) -> None:
            """Who lives again is fetched again; durable entries are there all the time."""
            store, heard = self.open(tmp_path), list[str]()
            store.take(delta("b", {"durable": b"1"}, 1, lifetime=DURABLE))
            whole = delta("b", {"lease": b"1"}, 2, 1)
            store.take(whole)
            store.follow(heard.append)
            for state in (MemberState.DEAD, MemberState.LEFT):
                store.judge("b", state)
                assert set(store.entries()) == {"durable"}
                assert store.known()["b"] == Known(1, 2)
                passed = store.missing("b", NOTHING, WHOLE)
                assert passed is not None
                assert passed.bare
                assert set(passed.changes) == {"durable"}
                assert not store.take(whole)
            assert heard == []
            store.judge("b", MemberState.UNREACHABLE)
            assert store.known()["b"] == Known(1, 0)
            assert heard == ["b"]

        def test_who_cannot_be_reached_keeps_all(self, tmp_path: Path) -> None:
            """That is quick and reversible, and steers only traffic."""
            store = self.open(tmp_path)
            store.take(delta("b", {"lease": b"1"}, 2))
            store.judge("b", MemberState.UNREACHABLE)
            assert set(store.entries()) == {"lease"}
            assert store.known()["b"] == Known(1, 2)

        def test_only_who_has_no_durable_entries_is_forgotten(self, tmp_path: Path) -> None:
            """And then nothing is known of it."""
            store = self.open(tmp_path)
            store.take(delta("b", {"durable": b"1"}, 1, lifetime=DURABLE))
            store.take(delta("c", {"lease": b"1"}, 1))
            assert not store.forget("b")
            assert store.forget("c")
            assert store.forget("nobody")
            assert set(store.entries()) == {"durable"}
            assert set(store.known()) == {"a", "b"}

        def test_a_durable_write_waits_for_copies(self, tmp_path: Path) -> None:
            """Of this generation, of other nodes, each counted once, and up to its version."""
            store = self.open(tmp_path)
            store.expect(2)
            done = store.write({"k": b"1"}, DURABLE)
            self.rig.turn()
            known = store.known()["a"]
            store.confirm("b", Known(known.generation - 1, known.version + 9))
            store.confirm("a", known)
            for _ in range(2):
                store.confirm("b", known)
            store.confirm("c", Known(known.generation, known.version - 1))
            assert outcome(done) == "waiting"
            assert outcome(store.write({"lease": b"1"}, LEASE)) == "done"
            store.confirm("c", Known(known.generation, known.version + 1))
            assert outcome(done) == "done"

        def test_fewer_copies_are_enough_once_fewer_are_expected(self, tmp_path: Path) -> None:
            """A node that is left alone does not wait for ever."""
            store = self.open(tmp_path)
            store.expect(1)
            done = store.write({"k": b"1"}, DURABLE)
            self.rig.turn()
            assert outcome(done) == "waiting"
            store.expect(0)
            assert outcome(done) == "done"

        def test_copies_are_told_when_they_are_on_disk(self, tmp_path: Path) -> None:
            """Of what has durable entries, and what touched those."""
            store, stored = self.open(tmp_path), list[tuple[str, Known]]()
            end = store.follow_copies(lambda owner, known: stored.append((owner, known)))
            store.take(delta("b", {"lease": b"1"}, 1))
            self.rig.turn()
            assert stored == []
            store.take(delta("b", {"durable": b"1"}, 2, 1, lifetime=DURABLE))
            assert stored == []
            self.rig.turn()
            assert stored == [("b", Known(1, 2))]
            store.take(delta("b", {"durable": None}, 3, 2))
            self.rig.turn()
            assert stored[1:] == [("b", Known(1, 3))]
            end()
            end()
            store.take(delta("b", {"durable": b"1"}, 4, 3, lifetime=DURABLE))
            self.rig.turn()
            assert len(stored) == 2

    return ReplicaContract
