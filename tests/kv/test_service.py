"""Acknowledgement: what a durable write promises, and what becomes of it when the disk refuses."""

import errno
from types import SimpleNamespace

import pytest
from twisted.logger import capturedLogs

from dcosnet.errors import PeerError
from dcosnet.model.delta import Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.member import MemberState
from dcosnet.model.stamp import Stamp
from dcosnet.testing.contracts.keyvalue import Reader, outcome
from dcosnet.testing.store_rig import StoreRig

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE


@pytest.fixture
def rig(tmp_path):
    rig = StoreRig(tmp_path)
    yield rig
    rig.stop()


def value(rig, key):
    entry = rig.store.get(key)
    return None if entry is None else entry.value


def sample(rig, name, **labels):
    (family,) = (one for one in rig.store.collect() if one.name == f"dcosnet_kv_{name}")
    (found,) = (one.value for one in family.samples if one.labels == labels)
    return found


def test_a_durable_write_is_acknowledged_by_the_disk(rig):
    """And readable before."""
    rig.held = True
    done = rig.store.write({"k": b"1"}, DURABLE)
    rig.turn()
    assert value(rig, "k") == b"1"
    assert outcome(done) == "waiting"
    rig.release()
    assert outcome(done) == "done"


def test_writes_of_a_turn_share_an_fsync(rig):
    """A thousand writes cost as one."""
    before = rig.disk.calls.count("sync")
    done = [rig.store.write({f"k{index}": b"1"}, DURABLE) for index in range(1000)]
    rig.turn()
    assert {outcome(one) for one in done} == {"done"}
    assert rig.disk.calls.count("sync") == before + 1
    assert sample(rig, "journal_commits_total") == 1


def test_writes_during_an_fsync_share_the_next(rig):
    """However many turns it takes."""
    rig.held = True
    first = rig.store.write({"k": b"1"}, DURABLE)
    rig.turn()
    later = []
    for index in range(5):
        later.append(rig.store.write({f"k{index}": b"1"}, DURABLE))
        rig.turn()
    before = rig.disk.calls.count("sync")
    rig.release()
    assert outcome(first) == "done"
    assert {outcome(one) for one in later} == {"waiting"}
    rig.release()
    assert {outcome(one) for one in later} == {"done"}
    assert rig.disk.calls.count("sync") == before + 2


def test_an_equal_write_waits_for_the_one_it_repeats(rig):
    """What is not on disk yet is not acknowledged to the second writer either."""
    rig.held = True
    for turned in (False, True):
        first = rig.store.write({"k": b"%d" % turned}, DURABLE)
        if turned:
            rig.turn()
        second = rig.store.write({"k": b"%d" % turned}, DURABLE)
        assert outcome(second) == "waiting"
        rig.turn()
        rig.release()
        assert (outcome(first), outcome(second)) == ("done", "done")
    assert outcome(rig.store.write({"k": b"1"}, DURABLE)) == "done"


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_refused_write_fails_and_is_taken_back(rig, call, number):
    """Readers see what was there before, in a later version; the store goes on."""
    reader = Reader()
    rig.store.write({"k": b"old"}, DURABLE)
    rig.store.write({"lease": b"1"}, LEASE)
    rig.turn()
    rig.store.subscribe("", reader.receive)
    rig.turn()
    before = rig.store.get("k")
    rig.disk.refuse = {call: number}
    done = rig.store.write({"k": b"new", "other": b"1"}, DURABLE)
    refused = rig.store.get("k")
    rig.turn()
    error = outcome(done)
    assert isinstance(error, OSError)
    assert error.errno == number
    after = rig.store.get("k")
    assert (after.value, after.created, after.written) == (b"old", before.created, before.written)
    assert after.version > refused.version
    assert value(rig, "other") is None
    assert value(rig, "lease") == b"1"
    rig.turn()
    assert reader.entries == rig.store.entries()
    rig.disk.refuse = {}
    again = rig.store.write({"k": b"new"}, DURABLE)
    rig.turn()
    assert outcome(again) == "done"
    rig.restart()
    assert {key: entry.value for key, entry in rig.store.entries().items()} == {"k": b"new"}


def test_what_was_written_upon_a_refused_write_fails_too(rig):
    """Its value stood on one that never was."""
    rig.store.write({"k": b"0"}, DURABLE)
    rig.turn()
    rig.held = True
    first = rig.store.write({"k": None}, DURABLE)
    rig.turn()
    second = rig.store.write({"k": b"2", "also": b"2"}, LEASE)
    free = rig.store.write({"free": b"1"}, LEASE)
    assert (outcome(second), outcome(free)) == ("waiting", "done")
    rig.disk.refuse = {"sync": errno.EIO}
    rig.release()
    assert isinstance(outcome(first), OSError)
    assert isinstance(outcome(second), OSError)
    assert value(rig, "k") == b"0"
    assert value(rig, "also") is None
    assert value(rig, "free") == b"1"
    rig.disk.refuse = {}


def test_a_disk_that_refuses_is_told_once_and_its_return_too(rig):
    """One event per change of state; every refusal is counted."""
    rig.disk.refuse = {"sync": errno.ENOSPC}
    with capturedLogs() as events:
        for _ in range(3):
            failed = rig.store.write({"k": b"1"}, DURABLE)
            rig.turn()
            assert isinstance(outcome(failed), OSError)
        assert rig.store.describe()["disk_refuses"]
        rig.disk.refuse = {}
        rig.store.write({"k": b"1"}, DURABLE)
        rig.turn()
    assert [event["log_level"].name for event in events] == ["error", "info"]
    assert sample(rig, "journal_refused_total") == 3
    assert not rig.store.describe()["disk_refuses"]


def test_a_full_disk_at_the_start_stops_nobody(tmp_path):
    """The keys are there, leases work, and durable writes fail until there is room."""
    rig = StoreRig(tmp_path)
    rig.store.write({"k": b"1"}, DURABLE)
    rig.stop()
    rig.disk.refuse = {"write": errno.ENOSPC}
    rig.start()
    assert value(rig, "k") == b"1"
    assert outcome(rig.store.write({"lease": b"1"}, LEASE)) == "done"
    failed = rig.store.write({"k": b"2"}, DURABLE)
    rig.turn()
    assert isinstance(outcome(failed), OSError)
    assert value(rig, "k") == b"1"
    rig.disk.refuse = {}
    rig.restart()
    assert value(rig, "k") == b"1"
    rig.stop()


def test_a_generation_that_could_not_be_written_is_not_used_again(tmp_path):
    """Two histories under one generation could never be told apart; the host's time sees to it."""
    rig = StoreRig(tmp_path)
    generations = []
    for _ in range(3):
        rig.stop()
        rig.now += 0.01
        rig.disk.refuse = {"write": errno.ENOSPC}
        rig.start()
        generations.append(rig.store.describe()["generation"])
    assert generations == sorted(set(generations))
    rig.stop()


def test_stopping_waits_for_the_disk(tmp_path):
    """What was written before the end is on disk at the end."""
    rig = StoreRig(tmp_path)
    rig.held = True
    rig.store.write({"a": b"1"}, DURABLE)
    rig.turn()
    done = rig.store.write({"b": b"1"}, DURABLE)
    stopped = []
    rig.store.stopService().addCallback(stopped.append)
    rig.release()
    assert not stopped
    rig.release()
    assert stopped
    assert outcome(done) == "done"
    late = rig.store.write({"c": b"1"}, DURABLE)
    rig.turn()
    rig.release()
    assert isinstance(outcome(late), OSError)
    rig.held = False
    rig.start()
    assert set(rig.store.entries()) == {"a", "b"}
    rig.stop()


def test_damage_is_reported(tmp_path):
    """Loudly, with the place where the old file is; and the keys before it serve."""
    rig = StoreRig(tmp_path)
    for key in ("a", "b", "c"):
        at = rig.store.journal.log.size
        rig.store.write({key: b"1"}, DURABLE)
        rig.turn()
        if key == "b":
            bad = at
    rig.stop()
    data = bytearray(rig.store.journal.path.read_bytes())
    data[bad + 15] ^= 0xFF
    rig.store.journal.path.write_bytes(data)
    with capturedLogs() as events:
        rig.start()
    assert [event["log_level"].name for event in events] == ["critical", "info"]
    assert set(rig.store.entries()) == {"a"}
    assert rig.store.describe()["damaged"] == events[0]["aside"]
    assert sample(rig, "journal_damaged") == 1
    rig.stop()


def test_a_torn_tail_is_reported(tmp_path):
    """As a warning: it was not acknowledged."""
    rig = StoreRig(tmp_path)
    rig.store.write({"a": b"1"}, DURABLE)
    rig.stop()
    with rig.store.journal.path.open("ab") as file:
        file.write(b"\xf5kv1 and no more")
    with capturedLogs() as events:
        rig.start()
    assert events[0]["log_level"].name == "warn"
    assert set(rig.store.entries()) == {"a"}
    assert sample(rig, "journal_torn_bytes") == 16
    rig.stop()


def test_entries_and_writes_are_counted(rig):
    """By lifetime; what was refused by the limit it went over."""
    rig.store.write({"a": b"1", "b": b"2"}, LEASE)
    rig.store.write({"a": None, "c": b"3"}, DURABLE)
    rig.turn()
    with pytest.raises(ValueError, match="512"):
        rig.store.write({"k" * 513: b""}, LEASE)
    assert sample(rig, "entries", lifetime="lease") == 1
    assert sample(rig, "entries", lifetime="durable") == 1
    assert sample(rig, "writes_total", lifetime="lease") == 2
    assert sample(rig, "writes_total", lifetime="durable") == 2
    assert sample(rig, "refused_writes_total", limit="key") == 1
    assert sample(rig, "namespace_bytes") == 4


def heard(rig, owner, version, values, generation=1, since=0, lifetime=LEASE, **more):
    """What a peer tells of an owner."""
    entries = {}
    for key, value in values.items():
        stamp = Stamp(1_700_000_000_000 + version, 0, owner)
        entries[key] = None if value is None else Entry(key, owner, value, lifetime, version, stamp, stamp)
    return rig.store.take(Delta(owner, generation, since, version, entries, **more))


def test_what_a_peer_tells_is_read_and_followed(rig):
    """As if it had been written here; and again is no news."""
    reader, told = Reader(), []
    rig.store.subscribe("", reader.receive)
    end = rig.store.follow(told.append)
    rig.turn()
    assert heard(rig, "b", 1, {"k": b"1"})
    assert not heard(rig, "b", 1, {"k": b"1"})
    assert rig.store.known()["b"] == Known(1, 1)
    rig.turn()
    assert reader.calls[1:] == [frozenset({"k"})]
    assert told == ["b"]
    end()
    end()
    heard(rig, "b", 2, {"k": b"2"})
    assert told == ["b"]


def test_what_a_peer_tells_of_this_node_is_not_taken(rig):
    """It is the only one who writes here."""
    rig.store.write({"k": b"1"}, LEASE)
    assert not heard(rig, "a", 99, {"k": b"2"}, generation=1 << 60)
    assert value(rig, "k") == b"1"


@pytest.mark.parametrize(
    ("owner", "key", "data", "limit"),
    [
        ("b", "k" * 513, b"", "key"),
        ("b", "k", bytes((1 << 20) + 1), "value"),
        ("b" * 254, "k", b"", "owners"),
        ("", "k", b"", "owners"),
    ],
)
def test_what_a_peer_tells_is_bounded(rig, owner, key, data, limit):
    """One sentence, nothing taken, counted; who was within the limits is not harmed."""
    with pytest.raises(PeerError, match=r"was not taken: .* ") as caught:
        heard(rig, owner, 1, {"fits": b"", key: data})
    assert "\n" not in str(caught.value)
    assert rig.store.entries() == {}
    assert owner not in rig.store.known()
    assert sample(rig, "refused_deltas_total", limit=limit) == 1
    assert heard(rig, "c", 1, {"k": b"1"})


def test_a_peers_namespace_has_the_bounds_of_our_own(rig):
    """64 MiB and 65 536 keys, with what is known of it already."""
    assert heard(rig, "b", 1, {str(index): b"" for index in range(65_536)})
    with pytest.raises(PeerError, match="65536 keys"):
        heard(rig, "b", 2, {"more": b""}, since=1)
    assert heard(rig, "b", 2, {"0": None, "more": b""}, since=1)
    with pytest.raises(PeerError, match="bytes together"):
        heard(rig, "c", 1, {f"{index:04}": bytes(1 << 20) for index in range(64)})
    assert sample(rig, "refused_deltas_total", limit="keys") == 1
    assert sample(rig, "refused_deltas_total", limit="namespace") == 1


@pytest.mark.parametrize(("generation", "since", "version", "told"), [(2, 0, 1, 2), (1, 3, 4, 3), (2, 0, -1, -1)])
def test_a_delta_that_contradicts_itself_is_not_taken(rig, generation, since, version, told):
    """An entry of a version that it does not lead over would never be passed on."""
    heard(rig, "b", 3, {"k": b"1"})
    stamp = Stamp(1, 0, "b")
    with pytest.raises(PeerError, match="was not taken"):
        rig.store.take(Delta("b", generation, since, version, {"x": Entry("x", "b", b"", LEASE, told, stamp, stamp)}))
    assert sample(rig, "refused_deltas_total", limit="form") == 1
    assert rig.store.known()["b"] == (1, 3)


def test_owners_are_bounded(rig):
    """A peer may invent names; it does not fill the memory with them."""
    for index in range(8191):
        heard(rig, f"n{index}", 1, {})
    with pytest.raises(PeerError, match="8192 owners are known already"):
        heard(rig, "more", 1, {})
    assert rig.store.forget("n0")
    assert heard(rig, "more", 1, {})


def test_leases_of_a_former_generation_end_after_ten_seconds(rig):
    """However often it begins anew meanwhile; and not those of one that settled in time."""
    heard(rig, "b", 1, {"k": b"1"}, settled=True)
    heard(rig, "c", 1, {"l": b"1"}, settled=True)
    heard(rig, "b", 1, {}, generation=2)
    heard(rig, "c", 1, {}, generation=2)
    rig.clock.advance(6)
    heard(rig, "c", 2, {"m": b"1"}, generation=2, since=1, settled=True)
    assert (value(rig, "k"), value(rig, "l"), value(rig, "m")) == (b"1", None, b"1")
    heard(rig, "b", 1, {}, generation=3)
    heard(rig, "c", 1, {}, generation=3)
    rig.clock.advance(3.9)
    assert (value(rig, "k"), value(rig, "m")) == (b"1", b"1")
    rig.clock.advance(0.1)
    assert (value(rig, "k"), value(rig, "m")) == (None, b"1")
    rig.clock.advance(6)
    assert value(rig, "m") is None


def written(rig, owner, ahead, version=1):
    """A value of a peer whose clock is ahead of this host's by some seconds."""
    stamp = Stamp(int((rig.now + ahead) * 1000), 0, owner)
    data = b"%d" % ahead
    return rig.store.take(
        Delta(owner, 1, version - 1, version, {"k": Entry("k", owner, data, LEASE, version, stamp, stamp)})
    )


def test_an_entry_of_a_clock_that_is_far_ahead_loses_until_its_time_comes(rig):
    """Whoever sets his clock wrong does not rule over a key; and alone he is seen, and kept."""
    written(rig, "fast", 3600)
    assert value(rig, "k") == b"3600"
    written(rig, "b", 5)
    assert value(rig, "k") == b"5"
    assert sample(rig, "ahead_entries") == 1
    assert sample(rig, "leaps_total") == 1
    for seconds, expected in ((3580, b"5"), (9, b"5"), (1, b"3600")):
        rig.now += seconds
        rig.clock.advance(1)
        assert value(rig, "k") == expected
    assert sample(rig, "ahead_entries") == 0
    assert not rig.clock.getDelayedCalls()
    rig.store.write({"k": b"mine"}, LEASE)
    assert value(rig, "k") == b"mine"


def test_two_clocks_that_are_ahead_are_compared_with_each_other(rig):
    """What both say is out of the question only where somebody else says something."""
    written(rig, "b", 3600)
    written(rig, "c", 7200)
    assert value(rig, "k") == b"7200"
    written(rig, "c", 20, version=2)
    assert value(rig, "k") == b"3600"
    written(rig, "c", 5, version=3)
    assert value(rig, "k") == b"5"
    heard(rig, "b", 2, {"k": None}, since=1)
    assert sample(rig, "ahead_entries") == 0


@pytest.mark.parametrize("ahead", [-5, 0, 5, 9.5, 11, 3600])
def test_a_write_is_never_ignored(rig, ahead):
    """It is later than all that was read of its key, also when the host's clock goes back or what was ahead is not."""
    written(rig, "b", ahead)
    rig.now -= 3
    rig.store.write({"k": b"mine"}, LEASE)
    assert value(rig, "k") == b"mine"
    rig.now += 3600
    rig.clock.advance(1)
    rig.store.write({"k": b"mine again"}, LEASE)
    assert value(rig, "k") == b"mine again"


def test_stopping_leaves_no_timer(rig):
    """Also while leases of a former generation are shown, an entry is ahead, or the disk refuses copies."""
    heard(rig, "b", 1, {"k": b"1"})
    heard(rig, "b", 1, {}, generation=2)
    written(rig, "c", 3600)
    rig.disk.refuse = {"create": errno.EIO}
    heard(rig, "d", 1, {"k": b"1"}, lifetime=DURABLE)
    rig.turn()
    rig.disk.refuse = {}
    clock, store = rig.clock, rig.store
    assert len(clock.getDelayedCalls()) == 3
    rig.restart()
    late = SimpleNamespace(store=store, now=rig.now)
    heard(late, "b", 1, {}, generation=3)
    written(late, "e", 3600)
    heard(late, "f", 1, {"k": b"1"}, lifetime=DURABLE)
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("state", MemberState)
def test_leases_of_the_dead_are_gone_at_once(rig, state):
    """Of who is unreachable they stay: traffic is steered elsewhere."""
    heard(rig, "b", 1, {"k": b"1"})
    rig.store.judge("b", state)
    gone = state in (MemberState.DEAD, MemberState.LEFT)
    assert value(rig, "k") == (None if gone else b"1")
    rig.store.judge("b", MemberState.ALIVE)
    assert rig.store.known()["b"] == ((1, 0) if gone else (1, 1))


def test_nothing_is_written_before_the_start(tmp_path):
    """The generation is not known yet; reading and subscribing do no harm."""
    rig = StoreRig(tmp_path)
    rig.stop()
    store = type(rig.store)(
        "a", rig.directory, rig.disk, lambda: rig.now, lambda run: None, rig.clock.callLater, rig._in_thread
    )
    assert store.entries() == {}
    with pytest.raises(AssertionError, match="before the store was started"):
        store.write({"k": b"1"}, LEASE)
