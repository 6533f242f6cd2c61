"""Reading and writing whole files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcosnet.io.files import read_folder, write_atomically

LONG_AGO = (1_000_000_000, 1_000_000_000)


def every(_name: str) -> bool:
    return True


def test_files_are_read_and_the_unwanted_are_not(tmp_path: Path) -> None:
    """By name, before they are opened."""
    (tmp_path / "a.toml").write_bytes(b"a")
    (tmp_path / "b.txt").write_bytes(b"b")
    found = read_folder(tmp_path, lambda name: name.endswith(".toml"), {})
    assert {name: read.data for name, read in found.read.items()} == {"a.toml": b"a"}


def test_a_young_file_is_never_believed_unchanged(tmp_path: Path) -> None:
    """Two writes within a tick of the clock look alike."""
    (tmp_path / "a").write_bytes(b"a")
    assert read_folder(tmp_path, every, {}).read["a"].signature is None


def test_a_file_as_known_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature says so; a file that is being written counts as the same."""
    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr("time.time_ns", lambda: 1 << 62)  # long after
    signature = read_folder(tmp_path, every, {}).read["a"].signature
    assert signature is not None
    assert read_folder(tmp_path, every, {"a": signature}).same == {"a"}
    (tmp_path / "a").write_bytes(b"other")
    assert read_folder(tmp_path, every, {"a": signature}, busy=frozenset("a")).same == {"a"}
    assert read_folder(tmp_path, every, {"a": signature}).read["a"].data == b"other"


def test_what_is_no_regular_file_is_told(tmp_path: Path) -> None:
    """A FIFO would block, a folder has no content, a link may lead nowhere."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    found = read_folder(tmp_path, every, {}).read
    assert "not a regular file" in str(found["fifo"].failure)
    assert "not a regular file" in str(found["folder"].failure)
    assert "cannot be read: No such file" in str(found["link"].failure)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_limits_are_told(tmp_path: Path) -> None:
    """Too large is told of the file; of too many, those known before stay."""
    for name in "abc":
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "c").write_bytes(b"12345")
    found = read_folder(tmp_path, every, {"c": None}, size_limit=4, count_limit=2)
    assert "is larger than" in str(found.read["c"].failure)
    assert found.read["a"].data == b"1234"
    assert found.omitted == ("b",)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """With what to do."""
    assert "create it" in str(read_folder(tmp_path / "no", every, {}).failure)


def test_a_write_replaces_the_whole(tmp_path: Path) -> None:
    """And leaves nothing beside it."""
    path = tmp_path / "state"
    write_atomically(path, b"old and long")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["state"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old(tmp_path: Path) -> None:
    """Here the target cannot be replaced."""
    path = tmp_path / "state"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="state"):
        write_atomically(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["state"]
