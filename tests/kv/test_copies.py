"""Other nodes' durable entries on this disk, and what a write promises once others have it."""

import errno
from pathlib import Path
from random import Random

import pytest
from twisted.logger import capturedLogs

from dcosnet.kv import records
from dcosnet.model.delta import NOTHING, Known
from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.testing.contracts.keyvalue import outcome
from dcosnet.testing.contracts.replica import delta
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE
ROOT = Path("/state")
COPIES = ROOT / "kv" / "copies"


@pytest.fixture
def rig():
    rig = StoreRig(ROOT, MemoryDisk(ROOT))
    yield rig
    rig.disk.refuse = {}
    rig.stop()


def hear(rig, *args, **more):
    return rig.store.take(delta(*args, lifetime=DURABLE, **more))


def values(rig):
    return {key: entry.value for key, entry in rig.store.entries().items()}


def sample(rig, name):
    (family,) = (one for one in rig.store.collect() if one.name == f"dcosnet_kv_{name}")
    return family.samples[0].value


def on_disk(rig, owner):
    return records.read(rig.disk.read(COPIES / f"{owner}.journal"))


def test_durable_entries_of_others_are_there_after_a_power_cut(rig):
    """Bare, so that their owner is asked for the rest; and whoever lost them is given them."""
    hear(rig, "b", {"k": b"1", "gone": b"1"}, 1)
    rig.turn()
    hear(rig, "b", {"gone": None, "l": b"2"}, 2, 1)
    rig.store.take(delta("b", {"lease": b"1"}, 3, 2))
    rig.turn()
    rig.crash(Random(1))
    rig.start()
    assert values(rig) == {"k": b"1", "l": b"2"}
    assert rig.store.known()["b"] == Known(1, 0)
    given = rig.store.missing("b", NOTHING, 1 << 40)
    assert (given.bare, given.settled, given.version, set(given.changes)) == (True, True, 3, {"k", "l"})
    rig.store.judge("b", MemberState.DEAD)
    assert rig.store.known()["b"] == Known(1, 3)
    rig.store.judge("b", MemberState.ALIVE)
    assert hear(rig, "b", {"k": b"1", "l": b"2"}, 3), "the whole is news"
    assert rig.store.known()["b"] == Known(1, 3)


def test_a_new_generation_takes_the_place_of_the_old_copy(rig):
    """What its owner does not say any more is not found at the next start."""
    hear(rig, "b", {"k": b"1", "gone": b"1"}, 5)
    rig.turn()
    hear(rig, "b", {"k": b"2"}, 1, generation=2)
    rig.turn()
    hear(rig, "b", {"l": b"2"}, 2, 1, generation=2)
    rig.turn()
    contents = on_disk(rig, "b")
    assert (contents.generation, contents.version, set(contents.entries)) == (2, 2, {"k", "l"})


def test_a_generation_that_began_with_nothing_durable_has_a_copy_of_its_own(rig):
    """Nothing is written for it until there is something; and then it is not taken for the former."""
    hear(rig, "b", {"k": b"1"}, 5)
    hear(rig, "b", {"k": None}, 6, 5)
    rig.turn()
    hear(rig, "b", {}, 1, generation=2)
    rig.turn()
    assert on_disk(rig, "b").generation == 1
    hear(rig, "b", {"l": b"1"}, 2, 1, generation=2)
    rig.turn()
    contents = on_disk(rig, "b")
    assert (contents.generation, contents.version, set(contents.entries)) == (2, 2, {"l"})


def test_that_its_owner_has_told_all_is_kept_with_a_copy(rig):
    """Whoever gets it from here drops what the former generation said."""
    hear(rig, "b", {"k": b"1"}, 1, settled=False)
    rig.turn()
    assert not on_disk(rig, "b").settled
    rig.store.take(delta("b", {}, 2, 1, settled=True))
    rig.turn()
    assert on_disk(rig, "b").settled
    rig.restart()
    assert rig.store.missing("b", NOTHING, 1 << 40).settled


def test_changes_during_a_commit_share_the_next(rig):
    """However many there are, of however many owners: only the last value of a key is written."""
    rig.held = True
    stored = []
    rig.store.follow_copies(lambda *told: stored.append(told))
    hear(rig, "b", {"k": b"1"}, 1)
    hear(rig, "c", {"k": b"1"}, 1)
    rig.turn()
    for version in range(2, 50):
        hear(rig, "b", {"k": b"%d" % version}, version, version - 1)
        rig.turn()
    before = rig.disk.calls.count("sync")
    rig.release()
    assert stored == [("b", Known(1, 1)), ("c", Known(1, 1))]
    assert sample(rig, "copies_pending") == 0
    rig.release()
    assert stored[2:] == [("b", Known(1, 49))]
    assert rig.disk.calls.count("sync") == before + 3
    assert sample(rig, "copies_commits_total") == 3
    assert sample(rig, "copies") == 2
    assert on_disk(rig, "b").entries["k"].value == b"49"


def test_owners_take_no_open_files(rig):
    """There may be more of them than a process may have files."""
    for index in range(50):
        hear(rig, f"n{index}", {"k": b"1"}, 1)
    rig.turn()
    for index in range(50):
        hear(rig, f"n{index}", {"k": b"2"}, 2, 1)
    rig.turn()
    assert sample(rig, "copies") == 50
    assert len(rig.disk._open) <= 2  # the directory, and the journal


def test_a_disk_that_refuses_costs_only_the_copies(rig):
    """They are tried again as a whole, and what the store knows is the same meanwhile."""
    stored = []
    rig.store.follow_copies(lambda *told: stored.append(told))
    hear(rig, "b", {"j": b"1", "k": b"1"}, 1)
    rig.turn()
    rig.disk.refuse = {"sync": errno.EIO}
    with capturedLogs() as events:
        hear(rig, "b", {"k": b"2", "n": b"1"}, 2, 1)
        rig.turn()
        hear(rig, "b", {"k": None, "l": b"1"}, 3, 2)
        hear(rig, "c", {"m": b"1"}, 1)
        rig.turn()
    assert [event["log_level"].name for event in events] == ["error"]
    assert values(rig) == {"j": b"1", "l": b"1", "m": b"1", "n": b"1"}
    assert sample(rig, "copies_refused_total") == 1
    assert sample(rig, "copies_pending") == 2
    assert rig.store.describe()["copies_refused"]
    rig.disk.refuse = {}
    assert stored == [("b", Known(1, 1))]
    rig.clock.advance(10)
    assert sorted(stored[1:]) == [("b", Known(1, 3)), ("c", Known(1, 1))]
    assert sample(rig, "copies_pending") == 0
    assert not rig.store.describe()["copies_refused"]
    rig.crash(Random(1))
    rig.start()
    assert values(rig) == {"j": b"1", "l": b"1", "m": b"1", "n": b"1"}


@pytest.mark.parametrize("data", [b"", b"nonsense", "flip", "other", "mine"])
def test_a_copy_that_is_damaged_is_dropped(rig, data):
    """With a warning: it can be fetched again. The others are kept."""
    hear(rig, "b", {"k": b"1"}, 1)
    hear(rig, "c", {"l": b"1"}, 1)
    rig.turn()
    whole = rig.disk.read(COPIES / "b.journal")
    path = COPIES / "b.journal"
    rig.stop()
    if data == "flip":
        data = whole[:9] + bytes([whole[9] ^ 1]) + whole[10:]
    elif data == "other":
        data = rig.disk.read(COPIES / "c.journal")
    elif data == "mine":
        path, data = COPIES / "a.journal", whole
        rig.disk.unlink(COPIES / "b.journal")
    rig.disk.put(path, data)
    with capturedLogs() as events:
        rig.start()
    assert [event["log_level"].name for event in events] == ["warn", "info"]
    assert values(rig) == {"l": b"1"}
    assert sample(rig, "copies_dropped") == 1
    assert rig.disk.names(COPIES) == ["c.journal"]
    hear(rig, "b", {"k": b"1"}, 1)
    rig.turn()
    assert on_disk(rig, "b").entries.keys() == {"k"}


def test_a_name_may_be_anything(rig):
    """A peer's name never leads out of the directory."""
    for name in ("../../etc/passwd", ".", "..", "b.new", "é", "a b"):
        hear(rig, name, {name: b"1"}, 1)
    rig.turn()
    assert len(rig.disk.names(COPIES)) == 6
    assert rig.disk.names(ROOT) == ["kv"]
    rig.restart()
    assert len(values(rig)) == 6


def test_what_is_forgotten_has_no_copy(rig):
    """An owner that is gone for good leaves nothing behind."""
    hear(rig, "b", {"k": b"1"}, 1)
    rig.turn()
    hear(rig, "b", {"k": None}, 2, 1)
    assert rig.store.forget("b")
    rig.turn()
    assert rig.disk.names(COPIES) == []
    assert sample(rig, "copies") == 0


def test_no_copies_stop_no_start(rig):
    """A directory that cannot be read costs the copies."""
    hear(rig, "b", {"k": b"1"}, 1)
    rig.store.write({"mine": b"1"}, DURABLE)
    rig.stop()
    rig.disk.unlink(COPIES)
    rig.disk.put(COPIES, b"a file")
    rig.start()
    assert values(rig) == {"mine": b"1"}
    assert sample(rig, "copies_dropped") == 1
    hear(rig, "b", {"k": b"1"}, 1)
    rig.turn()
    assert sample(rig, "copies_refused_total") == 1


def test_an_equal_write_waits_for_the_copies_of_the_first(rig):
    """What the first was not promised, the second is not either."""
    rig.store.expect(1)
    first = rig.store.write({"k": b"1"}, DURABLE)
    rig.turn()
    second = rig.store.write({"k": b"1"}, DURABLE)
    assert (outcome(first), outcome(second)) == ("waiting", "waiting")
    assert sample(rig, "waiting_writes") == 2
    rig.store.confirm("b", rig.store.known()["a"])
    assert (outcome(first), outcome(second)) == ("done", "done")
    assert sample(rig, "waiting_writes") == 0
    assert outcome(rig.store.write({"k": b"1"}, DURABLE)) == "done"


def test_copies_that_come_before_the_disk_count(rig):
    """A peer may be faster than the disk of this node; that alone acknowledges nothing."""
    rig.store.expect(1)
    rig.held = True
    done = rig.store.write({"k": b"1"}, DURABLE)
    rig.turn()
    rig.store.confirm("b", rig.store.known()["a"])
    assert outcome(done) == "waiting"
    rig.release()
    assert outcome(done) == "done"


def test_who_is_forgotten_has_confirmed_nothing(rig):
    """Its disk is not to be counted on."""
    rig.store.confirm("b", Known(rig.store.generation, 99))
    rig.store.expect(1)
    assert rig.store.forget("b")
    done = rig.store.write({"k": b"1"}, DURABLE)
    rig.turn()
    assert outcome(done) == "waiting"
    rig.store.expect(0)


def test_what_was_recovered_is_confirmed_anew():
    """Nobody has anything of the new generation."""
    rig = StoreRig(ROOT, MemoryDisk(ROOT))
    rig.stop()
    rig.disk.wipe()
    rig.recovers = True
    rig.start()
    rig.store.expect(1)
    rig.store.confirm("b", Known(rig.store.generation, 99))
    done = rig.store.write({"k": b"1"}, DURABLE)
    rig.store.recovered()
    rig.turn()
    assert outcome(done) == "waiting"
    rig.store.confirm("b", rig.store.known()["a"])
    assert outcome(done) == "done"
    rig.stop()


def test_a_write_that_waits_for_copies_fails_when_the_node_stops(rig):
    """It is on this disk; that others have it, nobody can say any more."""
    rig.store.expect(1)
    done = rig.store.write({"k": b"1"}, DURABLE)
    rig.turn()
    rig.restart()
    error = outcome(done)
    assert isinstance(error, OSError)
    assert error.errno == errno.ECANCELED
    assert values(rig) == {"k": b"1"}


def test_writes_that_wait_are_bounded(rig):
    """A node that is cut off refuses durable writes in the end; leases go on."""
    rig.store.expect(1)
    for _ in range(65_536):
        rig.store.write({"k": b"1"}, DURABLE).addErrback(lambda failure: failure.trap(OSError))
    with pytest.raises(ValueError, match="65536 writes wait"):
        rig.store.write({"k": b"1"}, DURABLE)
    assert outcome(rig.store.write({"lease": b"1"}, LEASE)) == "done"
    rig.turn()
    rig.store.expect(0)
    assert outcome(rig.store.write({"k": b"2"}, LEASE)) == "waiting"
    rig.turn()
    assert sample(rig, "waiting_writes") == 0
