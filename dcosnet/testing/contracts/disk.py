"""
What every Disk keeps while its power stays on: the suite to run on a disk of your own.

`class TestMine(disk_contract(make))`, where `make(directory)` gives a disk on
which that directory exists and is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dcosnet.io.disk import Disk


def raised(kind: type[OSError], call: Callable[[], object]) -> bool:
    """Whether a call raised this error."""
    try:
        call()
    except kind:
        return True
    return False


def disk_contract(make: Callable[[Path], Disk]) -> type:
    """A class of tests for pytest; each gets a fresh disk."""

    class DiskContract:
        def test_what_was_written_is_read(self, tmp_path: Path) -> None:
            """Whatever its order; a hole reads as zeros."""
            disk, path = make(tmp_path), tmp_path / "file"
            assert disk.read(path) is None
            descriptor = disk.create(path)
            assert disk.read(path) == b""
            assert disk.write(descriptor, memoryview(b"later"), 4) == 5
            assert disk.write(descriptor, memoryview(b"ab"), 0) == 2
            disk.sync(descriptor)
            disk.sync_directory(tmp_path)
            disk.close(descriptor)
            assert disk.read(path) == b"ab\0\0later"
            assert disk.names(tmp_path) == ["file"]

        def test_a_file_is_opened_as_it_is_and_created_empty(self, tmp_path: Path) -> None:
            """A file that is not there is opened by nobody."""
            disk, path = make(tmp_path), tmp_path / "file"
            assert raised(FileNotFoundError, lambda: disk.open(path))
            descriptor = disk.create(path)
            disk.write(descriptor, memoryview(b"abc"), 0)
            disk.close(descriptor)
            descriptor = disk.open(path)
            disk.write(descriptor, memoryview(b"d"), 3)
            disk.close(descriptor)
            assert disk.read(path) == b"abcd"
            disk.close(disk.create(path))
            assert disk.read(path) == b""

        def test_a_file_is_cut(self, tmp_path: Path) -> None:
            """To a size below its own."""
            disk, path = make(tmp_path), tmp_path / "file"
            descriptor = disk.create(path)
            disk.write(descriptor, memoryview(b"abcd"), 0)
            disk.truncate(descriptor, 1)
            disk.close(descriptor)
            assert disk.read(path) == b"a"

        def test_a_renamed_file_takes_the_place_of_another(self, tmp_path: Path) -> None:
            """And who has it open goes on writing to it."""
            disk, new, old = make(tmp_path), tmp_path / "new", tmp_path / "old"
            disk.close(disk.create(old))
            descriptor = disk.create(new)
            disk.rename(new, old)
            disk.write(descriptor, memoryview(b"abc"), 0)
            disk.close(descriptor)
            assert disk.read(old) == b"abc"
            assert disk.names(tmp_path) == ["old"]
            assert raised(FileNotFoundError, lambda: disk.rename(new, old))

        def test_a_file_has_two_names(self, tmp_path: Path) -> None:
            """Taking one away leaves the other; a name that is taken is not given."""
            disk, one, other = make(tmp_path), tmp_path / "one", tmp_path / "other"
            descriptor = disk.create(one)
            disk.link(one, other)
            assert raised(FileExistsError, lambda: disk.link(one, other))
            disk.unlink(one)
            disk.unlink(one)
            disk.write(descriptor, memoryview(b"abc"), 0)
            disk.close(descriptor)
            assert disk.read(other) == b"abc"
            assert disk.names(tmp_path) == ["other"]

        def test_a_directory_is_made_in_one_that_is_there(self, tmp_path: Path) -> None:
            """Once; and holds files."""
            disk, path = make(tmp_path), tmp_path / "directory"
            assert raised(FileNotFoundError, lambda: disk.make_directory(path / "inner"))
            assert raised(FileNotFoundError, lambda: disk.create(path / "file"))
            assert disk.make_directory(path)
            disk.sync_directory(tmp_path)
            disk.close(disk.create(path / "file"))
            assert not disk.make_directory(path)
            assert disk.names(path) == ["file"]
            assert raised(OSError, lambda: disk.read(path))

        def test_a_directory_is_held_by_one(self, tmp_path: Path) -> None:
            """Until it is closed."""
            disk = make(tmp_path)
            descriptor = disk.lock(tmp_path)
            assert raised(BlockingIOError, lambda: disk.lock(tmp_path))
            disk.close(descriptor)
            disk.close(disk.lock(tmp_path))

        def test_what_was_closed_is_closed(self, tmp_path: Path) -> None:
            """A descriptor serves nobody afterwards."""
            disk = make(tmp_path)
            descriptor = disk.create(tmp_path / "file")
            disk.close(descriptor)
            assert raised(OSError, lambda: disk.write(descriptor, memoryview(b"a"), 0))
            assert raised(OSError, lambda: disk.sync(descriptor))
            assert raised(OSError, lambda: disk.close(descriptor))

    return DiskContract
