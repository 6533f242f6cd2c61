"""What the service manager is told, and what it left."""

from __future__ import annotations

import array
import errno
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from dcosnet.io.activation import parse
from dcosnet.io.notify import Announcer, Notifier

COUNT = 5000


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


@pytest.fixture
def capture():
    lines: list[str] = []

    def see(event) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(see)
    yield lines
    globalLogPublisher.removeObserver(see)


@pytest.fixture
def environment(manager):
    return {"NOTIFY_SOCKET": manager.getsockname()}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def heard(manager) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def test_without_a_manager_nothing_is_told(clock) -> None:
    notifier = Notifier({}, clock)
    assert not notifier
    notifier.tell("READY=1")
    announcer = Announcer(notifier, {}, dict, clock)
    announcer.startService()
    assert not clock.getDelayedCalls()
    announcer.stopService()


def test_what_a_full_queue_does_not_take_comes_later_in_order(manager, environment, clock) -> None:
    """Descriptors too, though their owner has closed them meanwhile."""
    notifier = Notifier(environment, clock)
    with closing(notifier):
        for number in range(COUNT):
            notifier.tell(f"STATUS={number}")
        with socket.socket(type=socket.SOCK_DGRAM) as kept:
            notifier.tell("FDSTORE=1", "FDNAME=vip-1", descriptors=[kept.fileno()])
        assert clock.getDelayedCalls(), "the queue of a UNIX socket is shorter than this"
        got, rights = [], []
        while len(got) <= COUNT:
            try:
                data, ancillary, _flags, _address = manager.recvmsg(4096, 64)
            except BlockingIOError:
                assert clock.getDelayedCalls()
                clock.advance(1)
                continue
            got.append(data.decode())
            rights += [array.array("i", passed)[0] for _level, _kind, passed in ancillary]
    assert got == [*(f"STATUS={number}" for number in range(COUNT)), "FDSTORE=1\nFDNAME=vip-1"]
    assert len(rights) == 1
    for descriptor in rights:
        os.close(descriptor)


def test_without_descriptors_left_nothing_is_kept_and_nobody_fails(manager, environment, clock, monkeypatch) -> None:
    """A VIP that is served and not kept is better than one that is not served."""

    def full(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "dup", full)
    notifier = Notifier(environment, clock)
    with closing(notifier), socket.socket(type=socket.SOCK_DGRAM) as kept:
        notifier.tell("FDSTORE=1", "FDNAME=vip-1", descriptors=[kept.fileno()])
        assert heard(manager) == ["FDSTORE=1\nFDNAME=vip-1"], "what need not wait takes no second descriptor"
        while not clock.getDelayedCalls():
            notifier.tell("STATUS=full")
        notifier.tell("FDSTORE=1", "FDNAME=vip-2", descriptors=[kept.fileno()])
        notifier.tell("STATUS=last")
        got = []
        while clock.getDelayedCalls():
            got += heard(manager)
            clock.advance(1)
        got += heard(manager)
    assert set(got) == {"STATUS=full", "STATUS=last"}


def test_who_does_not_read_holds_so_many_descriptors_at_most(manager, environment, clock, monkeypatch) -> None:
    """Ten thousand VIPs that start would need twice as many else."""
    monkeypatch.setattr("dcosnet.io.notify.HELD_MAX", 3)
    notifier = Notifier(environment, clock)
    with closing(notifier), socket.socket(type=socket.SOCK_DGRAM) as kept:
        while not clock.getDelayedCalls():
            notifier.tell("STATUS=full")
        before = open_files()
        for number in range(20):
            notifier.tell("FDSTORE=1", f"FDNAME=vip-{number}", descriptors=[kept.fileno()])
        assert open_files() - before == 3
        heard(manager)
        notifier.tell("FDSTORE=1", "FDNAME=vip-99", descriptors=[kept.fileno()])
        assert "FDSTORE=1\nFDNAME=vip-99" in heard(manager), "the queue goes on without waiting for a turn"
    assert open_files() <= before


def test_a_manager_that_is_gone_is_missed_once(tmp_path, clock, capture) -> None:
    """Each VIP and each second has something to tell it."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, clock)
    with closing(notifier):
        for _ in range(3):
            notifier.tell("WATCHDOG=1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as back:
            back.bind(str(tmp_path / "notify"))
            notifier.tell("WATCHDOG=1")
        notifier.tell("WATCHDOG=1")
    assert len([line for line in capture if "was not told" in line]) == 2


def test_ready_comes_with_the_last_part_and_the_watchdog_is_fed(manager, environment) -> None:
    clock, parts = Clock(), {"kv": None, "mesos": "no master\nyet"}
    announcer = Announcer(Notifier(environment, clock), environment | {"WATCHDOG_USEC": "500000"}, lambda: parts, clock)
    announcer.startService()
    clock.advance(0)
    assert heard(manager) == ["WATCHDOG=1\nSTATUS=mesos: no master yet"]
    parts["mesos"] = None
    clock.advance(0.25)
    assert heard(manager) == ["WATCHDOG=1\nREADY=1\nSTATUS=all parts are ready"]
    clock.advance(0.25)
    assert heard(manager) == ["WATCHDOG=1"]
    announcer.stopService()
    assert heard(manager) == ["STOPPING=1"]
    assert not clock.getDelayedCalls()


def test_a_part_that_is_never_ready_does_not_keep_the_host_from_starting(manager, environment) -> None:
    clock = Clock()
    announcer = Announcer(Notifier(environment, clock), environment, lambda: {"mesos": "no master"}, clock)
    announcer.startService()
    said = []
    for seconds in (0, *[1] * 59):
        clock.advance(seconds)
        said += heard(manager)  # or its queue would be full
    assert not any("READY=1" in one for one in said)
    clock.advance(1)
    assert any("READY=1" in one for one in heard(manager))
    announcer.stopService()


def test_an_abstract_address_is_understood(clock) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0dcosnet-test-{os.getpid()}")
        sock.settimeout(20)
        with closing(Notifier({"NOTIFY_SOCKET": f"@dcosnet-test-{os.getpid()}"}, clock)) as notifier:
            notifier.tell("READY=1")
            assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:vip-1"}, {3: "a", 4: "vip-1"}),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:vip-1"}, {}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, {}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b:c"}, {3: "a"}),
        ({}, {}),
    ],
)
def test_what_was_passed_is_for_this_process_only(environment, expected) -> None:
    assert parse(environment, 7) == expected
