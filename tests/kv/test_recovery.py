"""A node that lost its disk: what others know of it comes back, and nothing that was said since is lost."""

import errno
from pathlib import Path
from random import Random

import pytest

from dcosnet.model.delta import NOTHING, Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.member import MemberState
from dcosnet.model.stamp import Stamp
from dcosnet.testing.contracts.keyvalue import outcome
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE
ROOT = Path("/state")


@pytest.fixture
def rig():
    """A node that has just lost its disk, and asks."""
    rig = StoreRig(ROOT, MemoryDisk(ROOT))
    rig.stop()
    rig.disk.wipe()
    rig.recovers = True
    rig.start()
    yield rig
    rig.disk.refuse = {}
    rig.stop()


def told(rig, values, version=5, generation=1, lifetime=DURABLE, **more):
    """What a peer knows of the node."""
    stamp = Stamp(1_600_000_000_000, 0, "a")
    entries = {key: Entry(key, "a", one, lifetime, version, stamp, stamp) for key, one in values.items()}
    return rig.store.take(Delta("a", generation, 0, version, entries, **more))


def values(rig):
    return {key: entry.value for key, entry in rig.store.entries().items()}


def test_it_is_fresh_until_its_journal_is_made(tmp_path):
    """New or lost is the same; and again at the next start, if power is lost before."""
    rig = StoreRig(ROOT, MemoryDisk(ROOT))
    assert not rig.store.fresh
    rig.restart()
    assert not rig.store.fresh
    rig.stop()
    rig.disk.wipe()
    rig.recovers = True
    rig.start()
    for _ in range(2):
        assert rig.store.fresh
        rig.turn()
        rig.crash(Random(1))
        rig.start()
    rig.store.recovered()
    rig.turn()
    assert not rig.store.fresh
    rig.restart()
    assert not rig.store.fresh
    rig.store.recover()
    assert "a" in rig.store.known(), "a store that is whole does not recover"
    rig.stop()


def test_it_says_nothing_of_itself_meanwhile(rig):
    """Others would take an empty namespace for all that it says."""
    heard = []
    rig.store.follow(heard.append)
    rig.store.write({"lease": b"1"}, LEASE)
    assert "a" not in rig.store.known()
    assert rig.store.missing("a", NOTHING, 1 << 40) is None
    assert heard == []
    assert values(rig) == {"lease": b"1"}
    rig.store.recovered()
    assert heard == ["a"]
    assert rig.store.known()["a"] == Known(rig.store.generation, 1)


def test_what_others_knew_is_its_own_again(rig):
    """With its old stamps, under a greater generation, and on disk."""
    far = 1 << 50
    assert told(rig, {"old": b"1"}, version=4)
    assert told(rig, {"k": b"1"}, generation=far, bare=True, settled=True)
    assert not told(rig, {"older": b"1"}, version=4)
    assert values(rig) == {}
    rig.store.recovered()
    assert values(rig) == {"k": b"1"}
    assert rig.store.generation == far + 1
    assert rig.store.get("k").written == Stamp(1_600_000_000_000, 0, "a")
    rig.turn()
    rig.recovers = False
    rig.crash(Random(1))
    rig.start()
    assert values(rig) == {"k": b"1"}
    assert rig.store.generation == far + 2


def test_a_generation_that_had_not_told_all_voids_nothing(rig):
    """An earlier start that found nobody to ask must not cost what was acknowledged before it."""
    told(rig, {"k": b"1"})
    told(rig, {"l": b"1"}, generation=2)
    rig.store.recovered()
    assert values(rig) == {"k": b"1", "l": b"1"}


def test_leases_of_before_are_not_its_own(rig):
    """Who knew them tells them again."""
    told(rig, {"lease": b"1"}, lifetime=LEASE)
    rig.store.recovered()
    assert values(rig) == {}


def test_what_was_written_meanwhile_stays(rig):
    """Also what was deleted, though it was not there to be deleted; it is acknowledged by the disk, after all."""
    told(rig, {"written": b"old", "deleted": b"old", "leased": b"old", "kept": b"old", "both": b"old"})
    done = [
        rig.store.write({"written": b"new"}, DURABLE),
        rig.store.write({"deleted": None}, DURABLE),
        rig.store.write({"both": b"new"}, DURABLE),
        rig.store.write({"both": None}, DURABLE),
    ]
    assert outcome(rig.store.write({"leased": b"new"}, LEASE)) == "done"
    rig.turn()
    assert {outcome(one) for one in done} == {"waiting"}
    rig.held = True
    rig.store.recovered()
    rig.turn()
    assert {outcome(one) for one in done} == {"waiting"}
    assert values(rig) == {"written": b"new", "kept": b"old", "leased": b"new"}
    rig.release()
    assert {outcome(one) for one in done} == {"done"}
    rig.recovers = False
    rig.crash(Random(1))
    rig.start()
    assert values(rig) == {"written": b"new", "kept": b"old"}


def test_a_disk_that_refuses_takes_back_what_was_written_and_not_what_was_found(rig):
    """What was found was acknowledged once: it is there, and goes to disk with the next write."""
    told(rig, {"written": b"old", "deleted": b"old", "kept": b"old", "leased": b"old"})
    done = [rig.store.write({"written": b"new", "leased": b"1"}, DURABLE), rig.store.write({"deleted": None}, DURABLE)]
    late = rig.store.write({"leased": b"2"}, LEASE)
    rig.disk.refuse = {"sync": errno.EIO}
    rig.store.recovered()
    rig.turn()
    assert all(isinstance(outcome(one), OSError) for one in (*done, late))
    old = {"written": b"old", "deleted": b"old", "kept": b"old", "leased": b"old"}
    assert values(rig) == old
    assert rig.store.fresh
    rig.disk.refuse = {}
    rig.store.write({"other": b"1"}, DURABLE)
    rig.turn()
    assert not rig.store.fresh
    rig.recovers = False
    rig.crash(Random(1))
    rig.start()
    assert values(rig) == {**old, "other": b"1"}


def test_stopping_while_it_recovers_fails_what_waits(rig):
    """It was not acknowledged, and will not be; the next start recovers."""
    done = rig.store.write({"k": b"1"}, DURABLE)
    rig.stop()
    assert isinstance(outcome(done), OSError)
    rig.start()
    assert rig.store.fresh
    assert values(rig) == {}


def test_what_is_beyond_a_limit_is_not_taken_of_itself_either(rig):
    """A peer is a peer."""
    with pytest.raises(Exception, match="was not taken"):
        told(rig, {"k" * 513: b""})


def test_a_damaged_journal_is_made_whole_by_others():
    """What stands before the damage serves; what was deleted behind it is gone again, what was written comes back."""
    rig = StoreRig(ROOT, MemoryDisk(ROOT))
    for changes in ({"deleted": b"1", "old": b"1"}, {"kept": b"1", "old": b"2"}, {"deleted": None}, {"last": b"1"}):
        at = rig.store.journal.log.size
        rig.store.write(changes, DURABLE)
        rig.turn()
        if "kept" in changes:
            bad = at
    peer = rig.store.missing("a", NOTHING, 1 << 40)
    rig.stop()
    data = bytearray(rig.disk.read(rig.store.journal.path))
    data[bad + 15] ^= 1
    rig.disk.put(rig.store.journal.path, bytes(data))
    rig.recovers = True
    rig.start()
    assert values(rig) == {"deleted": b"1", "old": b"1"}
    assert rig.store.fresh
    assert rig.store.take(peer)
    rig.store.recovered()
    assert values(rig) == {"kept": b"1", "old": b"2", "last": b"1"}
    rig.turn()
    rig.restart()
    assert values(rig) == {"kept": b"1", "old": b"2", "last": b"1"}
    rig.stop()


def test_a_damaged_journal_that_nobody_knows_better_serves_on():
    """What stands before the damage is all there is."""
    rig = StoreRig(ROOT, MemoryDisk(ROOT))
    ends = []
    for key in ("a", "b", "c"):
        rig.store.write({key: b"1"}, DURABLE)
        rig.turn()
        ends.append(rig.store.journal.log.size)
    bad = ends[0]
    rig.stop()
    data = bytearray(rig.disk.read(rig.store.journal.path))
    data[bad + 15] ^= 1
    rig.disk.put(rig.store.journal.path, bytes(data))
    for recovers in (True, False):
        rig.recovers = recovers
        rig.start()
        rig.store.recovered()
        rig.turn()
        assert values(rig) == {"a": b"1"}
        assert not rig.store.fresh
        rig.stop()


def test_a_judgement_of_this_node_is_not_its_own_business(rig):
    """Whatever others think of it, its leases are there."""
    rig.store.write({"lease": b"1"}, LEASE)
    rig.store.judge("a", MemberState.DEAD)
    rig.store.recovered()
    assert values(rig) == {"lease": b"1"}
    assert rig.store.known()["a"].version == 1


def test_it_goes_beyond_the_generation_in_which_it_was_known(rig):
    """A clock that went back as well must not make it look older than what it was."""
    known = rig.store.generation + 5000
    rig.store.exceed(known)
    assert rig.store.generation == known + 1
    rig.store.exceed(known - 1)
    assert rig.store.generation == known + 1
    rig.store.recovered()
    assert rig.store.known()["a"] == Known(known + 1, 0)
    rig.store.exceed(known + 7)
    assert rig.store.generation == known + 1, "who does not recover is told nothing"
