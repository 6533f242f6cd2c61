"""The disks keep one contract, and the one in memory loses what a power cut may take."""

import errno
from pathlib import Path
from random import Random

import pytest

from dcosnet.io.disk import Disk
from dcosnet.testing.contracts.disk import disk_contract
from dcosnet.testing.fragile_disk import FragileDisk
from dcosnet.testing.memory_disk import MemoryDisk, PowerCut

ROOT = Path("/state")
FILE = ROOT / "file"


class TestDisk(disk_contract(lambda _: Disk())):
    """The real one."""


class TestFragileDisk(disk_contract(lambda _: FragileDisk())):
    """The real one with no fault."""


class TestMemoryDisk(disk_contract(MemoryDisk)):
    """The fake."""


def written(disk, *pieces, sync=True):
    descriptor = disk.create(FILE)
    for offset, data in pieces:
        disk.write(descriptor, memoryview(data), offset)
    if sync:
        disk.sync(descriptor)
        disk.sync_directory(ROOT)
    return descriptor


def after_crashes(prepare, count=200):
    """All that may be found in the file after a power cut."""
    found = set()
    for seed in range(count):
        disk = MemoryDisk(ROOT)
        prepare(disk)
        disk.crash(Random(seed))
        found.add(disk.read(FILE))
    return found


def test_what_was_synced_is_there():
    """After any power cut."""
    assert after_crashes(lambda disk: written(disk, (0, b"abc"))) == {b"abc"}


def test_a_file_whose_name_was_not_synced_may_be_gone():
    """However well its bytes were."""

    def prepare(disk):
        disk.sync(written(disk, (0, b"abc"), sync=False))

    assert after_crashes(prepare) == {None, b"abc"}


def test_a_write_may_be_lost_torn_or_there():
    """In part, with zeros where its blocks were to be."""

    def prepare(disk):
        disk.write(written(disk, (0, b"abc")), memoryview(b"defg"), 3)

    found = after_crashes(prepare)
    assert {b"abc", b"abcd", b"abcdefg", b"abcd\0\0\0"} <= found
    assert all(data.startswith(b"abc") and len(data) <= 7 for data in found)


def test_writes_get_lost_in_any_order():
    """The second of two may be there without the first."""

    def prepare(disk):
        descriptor = written(disk, (0, b"a"))
        disk.write(descriptor, memoryview(b"b"), 1)
        disk.write(descriptor, memoryview(b"c"), 2)

    assert {b"a", b"ab", b"abc", b"a\0c"} <= after_crashes(prepare)


def test_a_rename_that_was_not_synced_may_not_have_happened():
    """One of the two files has the name, and never none."""

    def prepare(disk):
        written(disk, (0, b"old"))
        descriptor = disk.create(ROOT / "new")
        disk.write(descriptor, memoryview(b"new"), 0)
        disk.sync(descriptor)
        disk.rename(ROOT / "new", FILE)

    assert after_crashes(prepare) == {b"old", b"new"}


def test_a_sync_after_one_that_was_refused_promises_nothing():
    """A kernel marks the pages that it could not write as clean."""

    def prepare(disk):
        descriptor = written(disk, (0, b"abc"))
        disk.write(descriptor, memoryview(b"d"), 3)
        disk.refuse = {"sync": errno.EIO}
        with pytest.raises(OSError, match="told to refuse"):
            disk.sync(descriptor)
        disk.refuse = {}
        disk.sync(descriptor)
        assert disk.read(FILE) == b"abcd"

    assert after_crashes(prepare) == {b"abc", b"abcd"}


def test_a_killed_process_loses_nothing_that_it_wrote():
    """But what it held and had open."""
    disk = MemoryDisk(ROOT)
    descriptor = written(disk, (0, b"abc"), sync=False)
    disk.lock(ROOT)
    disk.kill()
    assert disk.read(FILE) == b"abc"
    with pytest.raises(OSError, match="Bad file"):
        disk.sync(descriptor)
    disk.lock(ROOT)


def test_the_last_call_takes_effect_and_those_after_it_do_not():
    """So that a test can stop at each of them."""
    disk = MemoryDisk(ROOT)
    descriptor = written(disk, (0, b"abc"))
    disk.last = len(disk.calls)
    with pytest.raises(PowerCut):
        disk.truncate(descriptor, 1)
    with pytest.raises(PowerCut):
        disk.unlink(FILE)
    assert disk.read(FILE) == b"a"


def test_another_disk_is_empty():
    """What was on the first is gone."""
    disk = MemoryDisk(ROOT)
    written(disk, (0, b"abc"))
    disk.wipe()
    assert disk.names(ROOT) == []


@pytest.mark.parametrize("make", [lambda _: FragileDisk(), MemoryDisk])
def test_a_full_disk_takes_what_there_is_room_for(tmp_path, make):
    """And then refuses."""
    disk = make(tmp_path)
    disk.room = 2
    descriptor = disk.create(tmp_path / "file")
    assert disk.write(descriptor, memoryview(b"abc"), 0) == 2
    with pytest.raises(OSError, match="No space"):
        disk.write(descriptor, memoryview(b"c"), 2)
    disk.close(descriptor)
