"""The simulated network does what networks do, so that what the simulator finds happens outside, too."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.sim.clock import Clock
from dcosnet.sim.network import Conditions, Network
from dcosnet.sim.process import Identity
from dcosnet.sim.trace import Trace

MS = 0.001
PORT = 62501


class Talker:
    """Notes all that happens to it, with the time, and answers nothing."""

    def __init__(self, rig, process):
        self.rig = rig
        self.process = process
        self.heard = []
        self.sockets = {}
        self.wants = None
        self.dialling = None

    def note(self, *what):
        self.heard.append((round(self.rig.clock.now - self.rig.began, 6), *what))

    @property
    def kinds(self):
        return [what[1] for what in self.heard]

    def bytes_from(self, socket):
        return b"".join(what[3] for what in self.heard if what[1] == "received" and what[2] is socket)

    def dial(self, other, number=1, timeout=5.0, name=None):
        endpoint = other if isinstance(other, str) else f"{other.process.host.address}:{PORT}"
        self.dialling = self.rig.network.dial(self.process, number, endpoint, name, timeout)

    def dialled(self, number, socket):
        self.note("dialled", number)
        self.sockets[number] = socket

    def unreached(self, number, why, text):
        self.note("unreached", why, text)

    def accepted(self, socket):
        self.note("accepted")
        self.sockets[-1] = socket

    def received(self, socket, data):
        self.note("received", socket, data)

    def writable(self, socket, room):
        self.note("writable", room)

    def closed(self, socket, reason):
        self.note("closed", reason)

    def datagram(self, source, message):
        self.note("datagram", source, message)

    def due(self):
        return self.wants

    def tick(self, now):
        self.note("tick")
        self.wants = None


class Rig:
    """A network with talkers on it; without chance in the latency, so that times can be reckoned."""

    def __init__(self, seed=1, **conditions):
        self.clock = Clock()
        self.began = self.clock.now
        self.trace = Trace()
        conditions = {"spread": 0.0, "bandwidth": 1e12, "handshake": 0.0} | conditions
        self.network = Network(self.clock, Random(seed), self.trace, Conditions(**conditions))
        self.count = 0

    def talker(self, address=None, name=None, cost=0.0, **identity):
        self.count += 1
        host = self.network.host(address or f"10.0.0.{self.count}")
        process = self.network.process(host, Identity(name or f"t{self.count}", **identity), lambda _: cost)
        talker = Talker(self, process)
        process.run(talker)
        host.listeners[PORT] = process
        return talker

    def run(self, seconds):
        self.clock.run(self.clock.now + seconds)

    def connected(self, cost=0.0):
        """Two talkers with a connection between them; at the time of 10 s."""
        one, other = self.talker(cost=cost), self.talker(cost=cost)
        one.dial(other)
        self.clock.run(self.began + 10)
        self.began += 10
        assert (one.kinds, other.kinds) == (["dialled"], ["accepted"])
        one.heard.clear()
        other.heard.clear()
        return one, other, one.sockets[1], other.sockets[-1]


def test_a_connection_takes_two_round_trips():
    """One of TCP and one of TLS; the server has the client's certificate half a round trip later."""
    rig = Rig()
    one, other = rig.talker(), rig.talker()
    one.dial(other, name="t2")
    rig.run(1)
    assert one.heard == [(4 * MS, "dialled", 1)]
    assert other.heard == [(5 * MS, "accepted")]


def test_a_host_whose_process_is_gone_refuses():
    """That is how a restart is told from a cut: at once."""
    rig = Rig()
    one, other = rig.talker(), rig.talker()
    rig.network.kill(other.process)
    one.dial(other)
    rig.run(1)
    assert one.heard == [(2 * MS, "unreached", "refused", "nobody listens there")]


@pytest.mark.parametrize("silence", ["no host", "stopped", "cut there", "cut back", "other side", "paused"])
def test_a_silent_host_is_known_by_the_timeout(silence):
    """A process that stands still accepts nothing, though its kernel answers."""
    rig = Rig()
    one, other = rig.talker(), rig.talker()
    here, there = one.process.host, other.process.host
    match silence:
        case "no host":
            one.dial(f"10.9.9.9:{PORT}", timeout=3)
        case "stopped":
            rig.network.stop(there, [other.process])
        case "cut there":
            rig.network.cut(here, there)
        case "cut back":
            rig.network.cut(there, here)
        case "other side":
            rig.network.part([[here], [there]])
        case "paused":
            other.process.pause(10)
    if silence != "no host":
        one.dial(other, timeout=3)
    rig.run(20)
    assert one.heard == [(3.0, "unreached", "no_answer", "no answer in 3 s")]
    assert "accepted" not in other.kinds


@pytest.mark.parametrize(
    ("here", "there", "name"),
    [
        ({}, {}, "somebody"),
        ({"authority": "other"}, {}, None),
        ({}, {"expired": True}, None),
        ({"expired": True}, {}, None),
    ],
)
def test_a_certificate_that_does_not_hold_is_no_connection(here, there, name):
    """Of either end, or of somebody else than was expected."""
    rig = Rig()
    one, other = rig.talker(**here), rig.talker(**there)
    one.dial(other, name=name)
    rig.run(1)
    assert [what[1:3] for what in one.heard] == [("unreached", "certificate")]
    assert other.heard == []


def test_who_gives_up_hears_no_more():
    """Neither end has a connection then."""
    rig = Rig()
    one, other = rig.talker(), rig.talker()
    one.dial(other)
    rig.run(1.5 * MS)
    one.dialling.over = True
    rig.run(10)
    assert one.heard == []
    assert other.heard == []


def test_a_stream_keeps_its_order_and_loses_nothing():
    """With any loss: what is lost is late, and so is all behind it."""
    rig = Rig(spread=1.0)
    _one, other, mine, theirs = rig.connected()
    rig.network.loss = 0.3
    for number in range(200):
        mine.write(b"%d." % number)
        rig.run(0.01)
    rig.run(300)
    assert other.bytes_from(theirs) == b"".join(b"%d." % number for number in range(200))


def test_a_lost_segment_stalls_what_follows():
    """200 ms, then 400: a ping behind a lost segment is late, though the path is fine."""
    rig = Rig()
    one, other, mine, _ = rig.connected()
    rig.network.cut(one.process.host, other.process.host)
    mine.write(b"a")
    rig.run(0.3)
    rig.network.mend(one.process.host, other.process.host)
    mine.write(b"b")
    rig.run(1)
    assert [(when, data) for when, _, _, data in other.heard] == [(0.601, b"a"), (0.601, b"b")]


def test_a_long_cut_ends_long_after_it_was_mended():
    """The wait doubles up to two minutes, so a node does well to dial anew."""
    rig = Rig()
    one, other, mine, _ = rig.connected()
    rig.network.cut(one.process.host, other.process.host)
    mine.write(b"a")
    rig.run(600)
    rig.network.heal()
    rig.run(1)
    assert other.heard == []
    rig.run(120)
    assert other.kinds == ["received"]


def test_a_cut_of_the_way_back_fills_the_window():
    """Data arrives until the window is full, as nothing is acknowledged; nothing is reset."""
    rig = Rig(window=1000)
    one, other, mine, theirs = rig.connected()
    rig.network.cut(other.process.host, one.process.host)
    for _ in range(30):
        mine.write(b"x" * 100)
    rig.run(50)
    assert other.bytes_from(theirs) == b"x" * 1000
    assert (one.heard, mine.unsent) == ([], 2000)
    rig.network.heal()
    rig.run(130)
    assert other.bytes_from(theirs) == b"x" * 3000
    assert one.heard == []


def test_a_sender_is_told_when_too_much_is_unsent_and_when_it_is_gone():
    """64 KiB, as the transports of Twisted have it."""
    rig = Rig(window=1000)
    one, other, mine, theirs = rig.connected()
    other.process.pause(10)
    for _ in range(70):
        mine.write(bytes(1000))
    assert [what[1:] for what in one.heard] == [("writable", False)]
    rig.run(9)
    assert one.kinds == ["writable"]
    rig.run(2)
    assert [what[1:] for what in one.heard] == [("writable", False), ("writable", True)]
    assert len(other.bytes_from(theirs)) == 70000


def test_a_slow_reader_slows_only_who_writes_to_it():
    """A kilobyte a second: the rest waits with the sender."""
    rig = Rig(window=4096)
    one, other, mine, _ = rig.connected()
    third = rig.talker()
    third.dial(other, 7)
    one.dial(third, 8)
    rig.run(1)
    one.heard.clear()
    other.heard.clear()
    third.heard.clear()
    other.process.host.reads = 1024
    rig.began = rig.clock.now
    for _ in range(20):
        mine.write(bytes(1002))  # and what TLS adds
    one.sockets[8].write(b"quick")
    rig.run(10.5)
    assert [when for when, _, _, _ in third.heard] == [1 * MS]
    assert [when for when, _, _, _ in other.heard] == [pytest.approx(second + MS) for second in range(1, 11)]


def test_a_killed_process_closes_and_a_stopped_host_says_nothing():
    """The difference between an unreachable verdict in a tenth of a second and in one."""
    for end, heard in (("kill", [(1 * MS, "closed", "closed")]), ("stop", [])):
        rig = Rig()
        one, other, _mine, _ = rig.connected()
        if end == "kill":
            rig.network.kill(other.process)
        else:
            rig.network.stop(other.process.host, [other.process])
        rig.run(60)
        assert one.heard == heard


def test_what_is_written_to_nobody_is_answered_by_a_reset():
    """A host that was away and is back knows no connections: half open, until the first write."""
    rig = Rig()
    one, other, mine, _ = rig.connected()
    host = other.process.host
    rig.network.stop(host, [other.process])
    mine.write(b"lost")
    rig.run(5)
    host.up = True
    rig.talker(host.address)
    rig.run(60)
    assert one.heard == [(pytest.approx(6.202), "closed", "reset")]


def test_a_close_comes_after_what_was_written():
    """The last words arrive."""
    rig = Rig(window=10)
    one, other, mine, theirs = rig.connected()
    for letter in b"goodbye":
        mine.write(bytes([letter]) * 10)
    mine.close()
    mine.write(b"unheard")
    theirs.write(b"unheard")
    rig.run(1)
    assert other.kinds == ["received"] * 7 + ["closed"]
    assert one.heard == []


def test_a_reset_may_leave_the_other_end_half_open():
    """It is said once; where it cannot pass nobody hears of it."""
    rig = Rig()
    one, other, mine, theirs = rig.connected()
    rig.network.cut(one.process.host, other.process.host)
    mine.abort()
    rig.run(10)
    assert (one.heard, other.heard) == ([], [])
    rig.network.heal()
    theirs.write(b"are you there?")
    rig.run(1)
    assert other.kinds == ["closed"]


def test_frames_cost_time_one_after_the_other():
    """A burst of a thousand frames keeps a node from its timers for 300 ms."""
    rig = Rig()
    _one, other, mine, _ = rig.connected(cost=0.0003)
    for _ in range(1000):
        mine.write(b"x")
    rig.run(1)
    times = [when for when, *_ in other.heard]
    assert times[0] == pytest.approx(0.0013)
    assert times[-1] == pytest.approx(0.301)


def test_a_paused_process_has_its_timers_late_and_then_its_backlog():
    """In this order: a node that is back thinks first that all the others were silent."""
    rig = Rig()
    _one, other, mine, _ = rig.connected()
    other.wants = rig.clock.now + 2
    other.process.soon(lambda: None)
    mine.write(b"before")
    rig.run(1)
    other.process.pause(4)
    mine.write(b"during")
    rig.run(10)
    assert [what[:2] for what in other.heard] == [(1 * MS, "received"), (5.0, "tick"), (5.0, "received")]


def test_bandwidth_is_shared_by_the_streams_of_a_host():
    """Bulk to one peer delays a ping to another by what is before it on the line."""
    rig = Rig(bandwidth=1e6, window=1 << 20)
    one, _other, mine, _ = rig.connected()
    third = rig.talker()
    one.dial(third, 8)
    rig.run(1)
    third.heard.clear()
    rig.began = rig.clock.now
    mine.write(bytes(500_000))
    one.sockets[8].write(b"ping")
    rig.run(1)
    assert third.heard[0][0] == pytest.approx(0.501, abs=MS)


def test_a_datagram_arrives_once_or_never():
    """For the models of protocols over UDP."""
    rig = Rig()
    one, other = rig.talker(), rig.talker()
    rig.network.send(one.process, "10.0.0.2", "hello", 100)
    rig.run(1)
    rig.network.part([[one.process.host]])
    rig.network.send(one.process, "10.0.0.2", "hello", 100)
    rig.network.heal()
    rig.run(10)
    assert [what[1:] for what in other.heard] == [("datagram", "10.0.0.1", "hello")]
    assert one.process.host.sent_bytes == 200


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "write", "cut", "heal", "lossy", "pause", "close", "abort", "kill", "stop", "run"]
        ),
        st.integers(0, 1),
        st.integers(1, 3000),
    ),
    max_size=40,
)


@given(steps=steps, seed=st.integers(0, 1000))
def test_whatever_happens_a_stream_is_a_prefix_of_what_was_written(steps, seed):
    """Never out of order, never twice, never with a hole; and whole where nobody ended it and the path healed."""
    rig = Rig(seed, window=2000, spread=1.0)
    ends = rig.connected()
    talkers, sockets = ends[:2], ends[2:]
    written = [bytearray(), bytearray()]
    ended = False
    for kind, which, size in steps:
        talker, socket = talkers[which], sockets[which]
        match kind:
            case "write":
                data = rig.network._rng.randbytes(size)
                if not (socket.gone or ended):
                    written[which] += data
                socket.write(data)
            case "cut":
                rig.network.cut(talker.process.host, talkers[1 - which].process.host)
            case "heal":
                rig.network.heal()
            case "lossy":
                talker.process.host.loss = 0.5
            case "pause":
                talker.process.pause(size / 100)
            case "run":
                rig.run(size / 1000)
            case _:
                ended = True
                match kind:
                    case "close":
                        socket.close()
                    case "abort":
                        socket.abort()
                    case "kill":
                        rig.network.kill(talker.process)
                    case "stop":
                        rig.network.stop(talker.process.host, [talker.process])
    rig.network.heal()
    rig.run(600)
    for which in (0, 1):
        got = talkers[1 - which].bytes_from(sockets[1 - which])
        assert bytes(written[which]).startswith(got)
        if not ended:
            assert got == bytes(written[which])
            assert sockets[which]._flying == 0
    for talker in talkers:
        assert talker.kinds.count("closed") <= 1
