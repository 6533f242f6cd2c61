"""Watching a folder, with the kernel's own events."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dcosnet.io import watch
from dcosnet.io.watch import Event, FolderWatch, decode


class Looks:
    """Waits for "look again", each time for a new one."""

    def __init__(self, path: Path) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.count = 0
        self.waiting: Deferred[None] | None = None
        self.watch = FolderWatch(reactor, path, self.look)

    def look(self) -> None:
        self.count += 1
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def after(self, act: Callable[[], object]) -> None:
        act()
        self.waiting = Deferred()
        await self.waiting.addTimeout(10, self.reactor)


@pytest.fixture
def looks(tmp_path: Path) -> Iterator[Looks]:
    (tmp_path / "services.d").mkdir()
    looks = Looks(tmp_path / "services.d")
    looks.watch.start()
    assert looks.watch.mode == "inotify"
    yield looks
    looks.watch.stop()


@pytest_twisted.ensureDeferred
async def test_every_way_to_change_a_file_is_seen(looks: Looks, tmp_path: Path) -> None:
    """In place, by rename, by link, by mode, and its removal."""
    folder = tmp_path / "services.d"
    (tmp_path / "new").write_text("b")
    await looks.after(lambda: (folder / "a.toml").write_text("a"))
    await looks.after(lambda: (tmp_path / "new").rename(folder / "a.toml"))
    await looks.after(lambda: (folder / "b.toml").symlink_to("a.toml"))
    await looks.after(lambda: (folder / "a.toml").chmod(0o400))
    await looks.after((folder / "a.toml").unlink)
    assert looks.watch.busy == frozenset()


@pytest_twisted.ensureDeferred
async def test_a_mounted_config_map_is_seen_to_change(looks: Looks, tmp_path: Path) -> None:
    """Its files are links through `..data`, which is replaced as a whole."""
    folder = tmp_path / "services.d"
    for version in ("..1", "..2"):
        (folder / version).mkdir()
        (folder / version / "a.toml").write_text(version)
    (folder / "..data").symlink_to("..1")
    await looks.after(lambda: (folder / "a.toml").symlink_to("..data/a.toml"))
    (folder / "..data_tmp").symlink_to("..2")
    await looks.after(lambda: (folder / "..data_tmp").rename(folder / "..data"))
    assert (folder / "a.toml").read_text() == "..2"


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_being_written_is_busy_until_it_is_closed(looks: Looks, tmp_path: Path) -> None:
    """Half of a file is not what somebody meant."""
    folder = tmp_path / "services.d"
    file = (folder / "a.toml").open("w")
    file.write("[[serv")
    file.flush()
    await looks.after(lambda: (folder / "b.toml").write_text("b"))
    assert looks.watch.busy == {"a.toml"}
    await looks.after(file.close)
    assert looks.watch.busy == frozenset()


@pytest_twisted.ensureDeferred
async def test_a_folder_that_is_replaced_is_followed(looks: Looks, tmp_path: Path) -> None:
    """Moved away, made anew, and then changed."""
    folder = tmp_path / "services.d"
    await looks.after(lambda: folder.rename(tmp_path / "old"))
    await looks.after(folder.mkdir)
    await looks.after(lambda: (folder / "a.toml").write_text("a"))
    count = looks.count
    (tmp_path / "old" / "b.toml").write_text("b")
    await looks.after(lambda: (folder / "a.toml").write_text("a"))
    assert looks.count == count + 1


@pytest_twisted.ensureDeferred
async def test_a_folder_comes_into_being(tmp_path: Path) -> None:
    """Also when the folders above it are not there yet."""
    folder = tmp_path / "etc" / "dcosnet" / "services.d"
    looks = Looks(folder)
    looks.watch.start()
    try:
        await looks.after(folder.parent.parent.mkdir)
        await looks.after(lambda: folder.mkdir(parents=True))
        await looks.after(lambda: (folder / "a.toml").write_text("a"))
    finally:
        looks.watch.stop()


@pytest_twisted.ensureDeferred
async def test_a_link_to_the_folder_is_followed_when_it_turns(tmp_path: Path) -> None:
    """Releases are switched by a link."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("1")
    (tmp_path / "next").symlink_to("2")
    looks = Looks(tmp_path / "current")
    looks.watch.start()
    try:
        await looks.after(lambda: (tmp_path / "next").rename(tmp_path / "current"))
        await looks.after(lambda: (tmp_path / "2" / "a.toml").write_text("a"))
    finally:
        looks.watch.stop()


class Kernel:
    """Stands for inotify: gives the events that the test makes up."""

    def __init__(self, _reactor: Any, receive: Callable[[Event], None]) -> None:
        self.receive = receive
        self.paths: list[Path] = []

    def watch(self, path: Path, _mask: int) -> int:
        if not path.exists():
            raise FileNotFoundError
        if path not in self.paths:
            self.paths.append(path)
        return self.paths.index(path)

    def unwatch(self, watch: int) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to close."""


def kernel_watch(clock: Clock, path: Path) -> tuple[FolderWatch, Kernel, list[float]]:
    made: list[Kernel] = []
    looks: list[float] = []

    def opened(reactor: Any, receive: Callable[[Event], None]) -> Any:
        made.append(Kernel(reactor, receive))
        return made[0]

    one = FolderWatch(
        clock, path, lambda: looks.append(clock.seconds()), important=lambda name: name == "a.toml", inotify=opened
    )
    one.start()
    return one, made[0], looks


def test_an_overflow_is_a_new_look(clock: Clock, tmp_path: Path) -> None:
    """Events were lost, so nothing is known of who writes, and the folder may be another."""
    one, kernel, looks = kernel_watch(clock, tmp_path)
    kernel.receive(Event(0, watch.IN_MODIFY, "a.toml"))
    kernel.receive(Event(-1, watch.IN_Q_OVERFLOW))
    assert (one.overflows, one.busy) == (1, frozenset())
    clock.advance(watch.SETTLE)
    assert len(looks) == 1
    one.stop()


def test_finished_writes_are_told_next_turn_and_removals_wait(clock: Clock, tmp_path: Path) -> None:
    """An editor renames the old file away before the new one is written: one look for all of it."""
    one, kernel, looks = kernel_watch(clock, tmp_path)
    kernel.receive(Event(0, watch.IN_MOVED_FROM, "a.toml"))
    kernel.receive(Event(0, watch.IN_MOVED_TO, "a.toml~"))
    clock.advance(0)
    assert looks == []
    for mask in (watch.IN_CREATE, watch.IN_MODIFY, watch.IN_CLOSE_WRITE):
        kernel.receive(Event(0, mask, "a.toml"))
    clock.advance(0)
    assert looks == [0.0]
    clock.advance(1)
    assert looks == [0.0]
    one.stop()


def test_time_brings_a_look_and_frees_who_never_closed(clock: Clock, tmp_path: Path) -> None:
    """Network file systems send no events; and a writer may hold a file open for ever."""
    one, kernel, looks = kernel_watch(clock, tmp_path)
    kernel.receive(Event(0, watch.IN_MODIFY, "a.toml"))
    clock.advance(watch.RESCAN)
    clock.advance(0)
    assert looks == [watch.RESCAN]
    assert one.busy == frozenset()
    one.stop()
    assert clock.getDelayedCalls() == []


def test_without_inotify_the_folder_is_looked_at_by_time(clock: Clock, tmp_path: Path) -> None:
    """What changed since the last look counts as being written."""

    def none_left(_reactor: Any, _receive: Callable[[Event], None]) -> NoReturn:
        raise OSError(24, "Too many open files")

    looks: list[frozenset[str]] = []
    one = FolderWatch(clock, tmp_path, lambda: looks.append(one.busy), inotify=none_left)
    one.start()
    assert one.mode == "poll"
    (tmp_path / "a.toml").write_text("a")
    for _ in range(2):
        clock.advance(watch.POLL)
        clock.advance(0)
    assert looks == [{"a.toml"}, frozenset()]
    one.stop()
    assert clock.getDelayedCalls() == []


NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0/"), max_size=20)
EVENTS = st.lists(st.builds(Event, st.integers(-1, 99), st.integers(0, 0xFFFFFFFF), NAMES))


@given(events=EVENTS)
def test_events_are_decoded_as_the_kernel_writes_them(events: list[Event]) -> None:
    """Names are padded with zeros to a multiple of the header."""
    data = b""
    for event in events:
        name = event.name.encode()
        length = (len(name) + 16) // 16 * 16 if name else 0
        data += struct.pack("=iIII", event.watch, event.mask, 0, length) + name.ljust(length, b"\0")
    assert list(decode(data)) == events
