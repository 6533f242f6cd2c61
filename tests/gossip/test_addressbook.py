"""Endpoints that are there after a restart."""

from twisted.internet.defer import Deferred, execute

from dcosnet.gossip.addressbook import EVERY, LIMIT, AddressBook


def at_once(reactor, run):
    return execute(run)


def book(clock, path, off=at_once):
    return AddressBook(clock, path, off=off)


def test_what_was_kept_is_read_at_the_next_start(clock, tmp_path):
    """In order, each once, for the eyes of its owner."""
    path = tmp_path / "gossip" / "peers"
    one = book(clock, path)
    assert one.read() == ()
    one.keep(["10.0.0.1:1", "b.example:2", "10.0.0.1:1"])
    clock.advance(EVERY)
    assert book(clock, path).read() == ("10.0.0.1:1", "b.example:2")
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_written_no_more_than_once_in_a_while(clock, tmp_path):
    """Members that flap are no reason to wear out a disk; the end writes what waits."""
    written = []

    def off(reactor, run):
        written.append(clock.seconds())
        return execute(run)

    one = book(clock, tmp_path / "peers", off)
    for number in range(30):
        one.keep([f"10.0.0.{number + 1}:1"])
        clock.advance(1)
    assert written == [EVERY, 2 * EVERY, 3 * EVERY]
    one.keep(["10.0.0.99:1"])
    one.close()
    assert len(written) == 4
    assert book(clock, tmp_path / "peers").read() == ("10.0.0.99:1",)
    assert clock.getDelayedCalls() == []


def test_nobody_there_is_no_reason_to_forget_those_who_were(clock, tmp_path):
    """A node that starts alone would find nobody the next time."""
    (tmp_path / "peers").write_text("10.0.0.1:1\n")
    one = book(clock, tmp_path / "peers")
    one.read()
    one.keep([])
    clock.advance(EVERY)
    assert book(clock, tmp_path / "peers").read() == ("10.0.0.1:1",)


def test_what_is_no_endpoint_is_passed_over(clock, tmp_path):
    """A file that was damaged is a hint less."""
    (tmp_path / "peers").write_bytes(b"\xff\n10.0.0.1:1\n\n:::\n" + b"x" * 2000)
    assert book(clock, tmp_path / "peers").read() == ("10.0.0.1:1",)
    (tmp_path / "peers").write_bytes(b"x" * (1 << 19))
    assert book(clock, tmp_path / "peers").read() == ()


def test_it_is_bounded(clock, tmp_path):
    """However many members there are."""
    one = book(clock, tmp_path / "peers")
    one.keep(f"10.0.{number // 200}.{number % 200 + 1}:1" for number in range(LIMIT + 10))
    clock.advance(EVERY)
    assert len(book(clock, tmp_path / "peers").read()) == LIMIT


def test_a_disk_that_refuses_is_told_and_tried_again(clock, tmp_path):
    """Nothing else depends on it."""
    blocked = tmp_path / "gossip"
    blocked.write_text("in the way")
    one = book(clock, blocked / "peers")
    one.keep(["10.0.0.1:1"])
    clock.advance(EVERY)
    assert "could not be written" in one.problem
    blocked.unlink()
    one.keep(["10.0.0.1:1"])
    clock.advance(EVERY)
    assert one.problem is None
    assert book(clock, blocked / "peers").read() == ("10.0.0.1:1",)


def test_the_end_waits_for_a_write_that_is_under_way(clock, tmp_path):
    """Or the process would end in its midst."""
    slow = Deferred()
    one = book(clock, tmp_path / "peers", lambda reactor, run: slow)
    one.keep(["10.0.0.1:1"])
    clock.advance(EVERY)
    ended = []
    one.close().addCallback(ended.append)
    assert ended == []
    slow.callback(None)
    assert ended
