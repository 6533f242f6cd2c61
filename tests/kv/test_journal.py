"""What the journal gives back after each way in which a disk or a power cut may fail."""

import errno
import itertools
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dcosnet.io.disk import Disk
from dcosnet.kv import records
from dcosnet.kv.journal import Journal, JournalError
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp
from dcosnet.testing.fragile_disk import FragileDisk
from dcosnet.testing.memory_disk import MemoryDisk


def entry(key, value=b"1", version=1, owner="a"):
    return Entry(key, owner, value, Lifetime.DURABLE, version, Stamp(1, 2, owner), Stamp(3, 4, owner))


class Hasty(Disk):
    """Syncs nothing: thousands of files are opened, and no power is cut."""

    def sync(self, descriptor):
        pass

    def sync_directory(self, path):
        pass


def commits(count):
    """Steps that put, overwrite and delete, each with a state of its own."""
    for version in range(1, count + 1):
        key = f"k{version % 4}"
        yield version, {key: None} if version % 5 == 0 else {key: entry(key, b"%d" % version, version)}


def begun(directory, disk=None, owner="a"):
    journal = Journal(directory, disk or FragileDisk())
    contents = journal.open(owner, 1)
    journal.begin(contents.version)
    return journal, contents


def reopened(directory, owner="a"):
    journal, contents = begun(directory, owner=owner)
    journal.close()
    return contents


def test_a_new_directory_holds_nothing(tmp_path):
    """And is made so that nobody else reads it."""
    contents = reopened(tmp_path / "kv")
    assert (contents.entries, contents.generation, contents.damage) == ({}, 1, None)
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "kv" / "journal").stat().st_mode & 0o777 == 0o600


def test_what_was_committed_is_read_back(tmp_path):
    """To the last field, in a generation that is greater."""
    journal, _ = begun(tmp_path)
    journal.commit(1, {"a": entry("a"), "b": entry("b")})
    journal.commit(2, {"b": None, "c": entry("c", bytes(range(256)), 2)})
    journal.close()
    contents = reopened(tmp_path)
    assert contents.entries == {"a": entry("a"), "c": entry("c", bytes(range(256)), 2)}
    assert (contents.version, contents.generation) == (2, 2)
    assert reopened(tmp_path).generation == 3


def test_the_generation_is_at_least_the_one_given(tmp_path):
    """The host's time, so that a lost disk does not take the generation back."""
    journal = Journal(tmp_path, FragileDisk())
    assert journal.open("a", 1_700_000_000).generation == 1_700_000_000
    journal.close()


def test_a_power_cut_at_any_byte_loses_nothing_acknowledged(tmp_path):
    """Cut the log everywhere: what is read is the state of the last commit that is whole."""
    journal, _ = begun(tmp_path / "whole")
    states, state = {journal.log.size: {}}, {}
    for version, changes in commits(12):
        journal.commit(version, changes)
        state = {key: one for key, one in {**state, **changes}.items() if one is not None}
        states[journal.log.size] = state
    journal.close()
    data = journal.path.read_bytes()
    assert len(data) == journal.log.size == max(states)
    for cut in range(min(states), len(data) + 1):
        directory = tmp_path / "cut"
        directory.mkdir(exist_ok=True)
        (directory / "journal").write_bytes(data[:cut])
        journal, contents = begun(directory, Hasty())
        journal.close()
        end = max(size for size in states if size <= cut)
        assert contents.damage is None
        assert contents.entries == states[end]
        assert journal.torn_bytes == cut - end
        assert records.read(journal.path.read_bytes()).entries == states[end]


@given(cut=st.integers(0, 400), tail=st.binary(max_size=64), zeros=st.integers(0, 64))
def test_a_torn_tail_may_be_anything(cut, tail, zeros):
    """A file system may leave old blocks or zeros where a write was under way."""
    whole = b"".join(records.snapshot("a", 1, 0, []))
    first = records.changes(1, {"k": entry("k")})
    second = records.changes(2, {"k": entry("k", b"2", 2)})
    torn = second[: min(cut, len(second) - 1)] + bytes(zeros) + tail
    assume(not torn.startswith(second))
    contents = records.read(whole + first + torn)
    assert contents.entries == {"k": entry("k")}
    assert contents.version == 1
    assert contents.damage is None


@given(data=st.binary(max_size=200))
def test_any_bytes_can_be_read(data):
    """Nothing that stands in the file makes the reader raise."""
    contents = records.read(data)
    assert contents.entries == {}
    assert contents.damage == (0 if data else None)


def test_any_flipped_bit_before_the_tail_is_damage(tmp_path):
    """It is never taken for a write that was cut short, and never believed."""
    journal, _ = begun(tmp_path)
    sizes = [journal.log.size]
    for version in (1, 2, 3):
        journal.commit(version, {f"k{version}": entry(f"k{version}", b"x", version)})
        sizes.append(journal.log.size)
    journal.close()
    data = journal.path.read_bytes()
    for position, bit in itertools.product(range(sizes[-2]), range(8)):
        bad = bytearray(data)
        bad[position] ^= 1 << bit
        contents = records.read(bytes(bad))
        assert contents.damage is not None
        assert contents.damage <= position
        assert set(contents.entries) <= {"k1", "k2"}


def test_a_damaged_journal_is_moved_aside_and_its_beginning_kept(tmp_path):
    """Nothing is thrown away that somebody could still read."""
    journal, _ = begun(tmp_path)
    journal.commit(1, {"a": entry("a")})
    at = journal.log.size
    journal.commit(2, {"b": entry("b")})
    journal.commit(3, {"c": entry("c")})
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[at + 20] ^= 1
    journal.path.write_bytes(data)
    journal, contents = begun(tmp_path)
    journal.close()
    assert contents.damage == at
    assert contents.entries == {"a": entry("a")}
    assert journal.damaged.read_bytes() == bytes(data)
    assert journal.torn_bytes == 0
    after = reopened(tmp_path)
    assert (after.damage, after.entries) == (None, {"a": entry("a")})


def test_a_value_that_looks_like_a_record_is_not_one(tmp_path):
    """In a whole record it is a value; in a torn one it costs the file its name, and no key."""
    inner = records.changes(9, {"evil": entry("evil")})
    journal, _ = begun(tmp_path)
    journal.commit(1, {"a": entry("a", inner)})
    size = journal.log.size
    journal.commit(2, {"b": entry("b", inner + bytes(100))})
    journal.close()
    data = journal.path.read_bytes()
    assert set(records.read(data).entries) == {"a", "b"}
    torn = records.read(data[:-50])
    assert (set(torn.entries), torn.damage) == ({"a"}, size)


def test_what_has_the_name_is_on_disk(tmp_path):
    """A new file is synced, renamed, and its directory synced; a record is synced before it counts."""
    disk = FragileDisk()
    journal, _ = begun(tmp_path, disk)
    assert [call for call, _ in itertools.groupby(disk.calls)] == [
        "make_directory",
        "create",
        "write",
        "sync",
        "rename",
        "sync_directory",
    ]
    assert disk.calls[-2:] == ["sync_directory"] * 2  # and the name of the directory itself, once
    disk.calls.clear()
    journal.commit(1, {"a": entry("a")})
    assert disk.calls == ["write", "sync"]
    journal.close()


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_refused_commit_does_not_count(tmp_path, call, number):
    """The next one does, and neither brings the refused one back."""
    disk = FragileDisk()
    journal, _ = begun(tmp_path, disk)
    journal.commit(1, {"a": entry("a")})
    disk.refuse = {call: number}
    for version in (2, 3):
        with pytest.raises(OSError, match="told to refuse") as caught:
            journal.commit(version, {"a": None, "b": entry("b")})
        assert caught.value.errno == number
    disk.refuse = {}
    journal.commit(4, {"c": entry("c")})
    journal.close()
    assert set(reopened(tmp_path).entries) == {"a", "c"}


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_refused_commit_does_not_come_back_after_a_crash(tmp_path, call):
    """It was reported as failed; the file is cut back to what was acknowledged."""
    disk = FragileDisk()
    journal, _ = begun(tmp_path, disk)
    journal.commit(1, {"a": entry("a")})
    disk.refuse = {call: errno.EIO}
    with pytest.raises(OSError, match="told to refuse"):
        journal.commit(2, {"b": entry("b")})
    journal.close()
    assert set(reopened(tmp_path).entries) == {"a"}


@pytest.mark.parametrize("call", ["write", "sync", "rename"])
def test_a_journal_that_could_not_be_begun_is_written_later(tmp_path, call):
    """A full disk at the start loses nothing and stops nobody."""
    journal, _ = begun(tmp_path)
    journal.commit(1, {"a": entry("a")})
    journal.close()
    disk = FragileDisk()
    journal = Journal(tmp_path, disk)
    assert set(journal.open("a", 1).entries) == {"a"}
    disk.refuse = {call: errno.ENOSPC}
    with pytest.raises(OSError, match="told to refuse"):
        journal.begin(1)
    disk.refuse = {}
    journal.commit(2, {"b": entry("b")})
    journal.close()
    assert set(reopened(tmp_path).entries) == {"a", "b"}


def test_a_disk_that_fills_up_keeps_what_it_took(tmp_path):
    """A record of which half was written is cut off, and the room used by the next that fits."""
    disk = FragileDisk()
    journal, _ = begun(tmp_path, disk)
    journal.commit(1, {"a": entry("a")})
    disk.room = 40
    with pytest.raises(OSError, match="No space"):
        journal.commit(2, {"b": entry("b", bytes(100))})
    assert journal.path.stat().st_size == journal.log.size
    disk.room = None
    journal.commit(3, {"c": entry("c")})
    journal.close()
    assert set(reopened(tmp_path).entries) == {"a", "c"}


def test_writes_in_pieces_are_one_write(tmp_path):
    """A kernel may take less than it was given."""
    disk = FragileDisk()
    disk.piece = 3
    journal, _ = begun(tmp_path, disk)
    journal.commit(1, {"a": entry("a")})
    journal.close()
    assert set(reopened(tmp_path).entries) == {"a"}


def test_a_log_that_has_grown_is_written_anew(tmp_path):
    """One key overwritten for ever takes a bounded file."""
    journal, _ = begun(tmp_path)
    for version in range(1, 12):
        journal.commit(version, {"k": entry("k", bytes(300_000), version)})
    journal.close()
    assert journal.log.rewrites >= 3
    assert journal.path.stat().st_size == journal.log.size < 2_000_000
    assert reopened(tmp_path).entries == {"k": entry("k", bytes(300_000), 11)}


@pytest.mark.parametrize("call", ["rename", "truncate"])
def test_a_rewrite_that_fails_fails_no_commit(tmp_path, call):
    """What was appended is on disk, whichever file has the name."""
    disk = FragileDisk()
    journal, _ = begun(tmp_path, disk)
    disk.refuse = {call: errno.EIO}
    for version in range(1, 5):
        journal.commit(version, {f"k{version}": entry(f"k{version}", bytes(300_000), version)})
    disk.refuse = {}
    assert journal.log.rewrites_refused == (call == "rename")
    journal.commit(5, {"last": entry("last")})
    journal.close()
    assert len(reopened(tmp_path).entries) == 5


@pytest.mark.parametrize("seed", range(20))
def test_a_file_whose_sync_failed_takes_nothing_more(seed):
    """The kernel says yes to the next sync, and has not written; so the next commit writes another file."""
    disk = MemoryDisk(Path("/state"))
    journal, _ = begun(Path("/state/kv"), disk)
    disk.refuse = {"sync": errno.EIO}
    with pytest.raises(OSError, match="told to refuse"):
        journal.commit(1, {"a": entry("a")})
    disk.refuse = {}
    journal.commit(2, {"b": entry("b", version=2)})
    disk.crash(Random(seed))
    assert set(begun(Path("/state/kv"), disk)[1].entries) == {"b"}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("call", ["rename", "sync_directory", "create"])
def test_whichever_file_has_the_name_after_a_rewrite_that_failed_all_is_in_it(call, seed):
    """What is appended after it is not appended to a file that may have lost its name."""
    disk = MemoryDisk(Path("/state"))
    journal, _ = begun(Path("/state/kv"), disk)
    values = {f"k{version}": entry(f"k{version}", bytes(300_000), version) for version in range(1, 6)}
    for version, (key, one) in enumerate(values.items(), 1):
        disk.refuse = {call: errno.EIO} if version == 4 else {}
        journal.commit(version, {key: one})
    assert journal.log.rewrites_refused == 1
    disk.crash(Random(seed))
    assert set(begun(Path("/state/kv"), disk)[1].entries) == set(values)


def test_a_directory_serves_one_process(tmp_path):
    """Two daemons with one state_dir would mix their generations."""
    journal, _ = begun(tmp_path)
    with pytest.raises(JournalError, match="another process uses it; give this process a state_dir of its own"):
        Journal(tmp_path, FragileDisk()).open("a", 1)
    journal.close()
    reopened(tmp_path)


def test_keys_of_another_node_are_not_taken_over(tmp_path):
    """A cloned disk would otherwise claim what the first node claimed. An empty journal says nothing."""
    reopened(tmp_path)
    journal, _ = begun(tmp_path, owner="b")
    journal.commit(1, {"a": entry("a", owner="b")})
    journal.close()
    with pytest.raises(JournalError, match=r"node 'b', and this is 'a'; set node\.name back"):
        reopened(tmp_path)
    assert set(reopened(tmp_path, owner="b").entries) == {"a"}


def test_a_closed_journal_takes_nothing(tmp_path):
    """What comes after the end is refused, not lost in silence."""
    journal, _ = begun(tmp_path)
    journal.close()
    with pytest.raises(OSError, match="closed"):
        journal.commit(1, {"a": entry("a")})


def test_a_directory_that_cannot_be_made_is_told_in_one_line(tmp_path):
    """Path, why, and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError) as caught:
        Journal(tmp_path / "file", FragileDisk()).open("a", 1)
    assert str(tmp_path / "file" / "journal") in str(caught.value)
    assert "\n" not in str(caught.value)
