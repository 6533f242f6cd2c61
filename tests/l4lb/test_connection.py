"""The law of a connection: what goes in comes out, whatever the ends do; stepped by hand, without the reactor."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcosnet.io.epoll import READ
from dcosnet.l4lb.connection import Connection

from .rig import HOME, PATIENCE, VIP, Plane, backend, free_port, listener, open_plane, service

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed so is reset
MODES = ({"pipes": 0}, {"bulk": 1}, {"bulk": 64 * 1024}, {"bulk": 1, "pipes": 1}, {})


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Wire:
    """A client's socket and a backend's, and the proxy between them, which acts in `pump` only."""

    def __init__(self, plane: Plane, room: int | None = None) -> None:
        self.plane = plane
        with socket.socket() as door:
            if room is not None:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            door.bind((str(HOME), 0))
            door.listen()
            one = listener(free_port())
            plane.apply(plane.plane.observe().result | {one: service(one, backend(door.getsockname()[1]))})
            client = socket.socket()
            if room is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            client.connect((str(VIP), one.port))
            self.pump()
            server, _ = door.accept()
        self.ends = (client, server)
        self.said = (bytearray(), bytearray())
        self.heard = (bytearray(), bytearray())
        for end in self.ends:
            end.setblocking(False)

    def pump(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.plane.epoll.doRead()

    def say(self, end: int, data: bytes) -> None:
        try:
            sent = self.ends[end].send(data)
        except BlockingIOError:
            sent = 0
        self.said[end].extend(data[:sent])

    def hear(self, end: int, amount: int) -> bool:
        """False when the other side has said its last byte."""
        try:
            data = self.ends[end].recv(amount)
        except BlockingIOError:
            return True
        self.heard[end].extend(data)
        return bool(data)

    def finish(self, end: int) -> None:
        self.ends[end].shutdown(socket.SHUT_WR)

    def hear_all(self, end: int) -> None:
        """Until the other side's last byte."""
        while self.hear(end, 1 << 20):
            self.pump()
            select.select([self.plane.epoll, self.ends[end]], [], [], PATIENCE)

    def close(self) -> None:
        for end in self.ends:
            end.close()
        self.pump(2)


@contextmanager
def wired(**mode) -> Iterator[tuple[Plane, Callable[..., Wire]]]:
    """A plane, and a function that puts one more connection through it; nothing is left of them."""
    before = descriptors()
    wires = []

    def wire(room: int | None = None) -> Wire:
        wires.append(Wire(plane, room))
        return wires[-1]

    with open_plane(**mode) as plane:
        try:
            yield plane, wire
        finally:
            for one in wires:
                one.close()
    assert descriptors() == before


ENDS = st.integers(0, 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), ENDS, st.sampled_from([1, 1000, 16 * 1024, 64 * 1024, 300_000, 1_000_000])),
        st.tuples(st.just("hear"), ENDS, st.sampled_from([1, 5000, 64 * 1024, 1_000_000])),
        st.tuples(st.just("pump"), st.just(0), st.integers(1, 3)),
        st.tuples(st.just("finish"), ENDS, st.just(0)),
    ),
    max_size=40,
)


@given(mode=st.sampled_from(MODES), steps=STEPS, room=st.sampled_from([None, 4096]), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_bytes_out_equal_bytes_in(mode, steps, room, seed) -> None:
    """For any segmentation, half-close and stall, both ways at once, copied or spliced."""
    rng = Random(seed)
    with wired(**mode) as (plane, wire_up):
        wire = wire_up(room)
        finished = set()
        for step, end, amount in steps:
            if step == "say" and end not in finished:
                wire.say(end, rng.randbytes(amount))
            elif step == "hear":
                wire.hear(end, amount)
            elif step == "pump":
                wire.pump(amount)
            elif step == "finish" and end not in finished:
                finished.add(end)
                wire.finish(end)
        for end in {0, 1} - finished:
            wire.finish(end)
        for end in (0, 1):
            wire.hear_all(end)
        wire.pump(2)
        assert wire.heard[1] == wire.said[0]
        assert wire.heard[0] == wire.said[1]
        assert plane.proxy.transferred == tuple(map(len, wire.said))
        assert plane.counts.active == 0
        assert plane.proxy.pipes.taken == 0


@pytest.mark.parametrize("reset", [0, 1])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_cut_of_many_in_the_midst_leaves_nothing(mode, reset) -> None:
    """No descriptor, no pipe, no entry of a table; whichever side cuts, while bytes wait on the way to the other."""
    with wired(**mode) as (plane, wire_up):
        idle = len(plane.epoll)
        wires = [wire_up() for _ in range(8)]
        for wire in wires:
            for _ in range(20):
                for end in (0, 1):
                    wire.say(end, bytes(1_000_000))
                wire.pump()
        assert sum(end.held for one in plane.proxy.connections for end in (one.client, one.server))
        for wire in wires:
            wire.ends[reset].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            wire.ends[reset].close()
        wires[0].pump(10)
        assert plane.counts.active == 0
        assert plane.proxy.pipes.taken == 0
        assert len(plane.epoll) == idle + len(wires)
        for wire in wires:
            with pytest.raises(ConnectionResetError):
                while True:
                    if not wire.hear(1 - reset, 1 << 20):
                        pytest.fail("a stream that was cut looks like one that ended")
            assert {target.active for one in plane.plane._open.values() for target in one.socket.schedule.targets} == {
                0
            }


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_an_answer_before_the_request_is_complete_is_not_lost_with_it(mode) -> None:
    """A backend answers, closes and so resets who is still sending; as without a proxy, the answer can be read."""
    with wired(**mode) as (_, wire_up):
        wire = wire_up()
        wire.say(0, b"a large request")
        wire.pump(2)
        wire.say(0, b"and more of it")
        wire.say(1, b"413 too large")
        wire.ends[1].close()
        wire.pump(4)
        wire.hear(0, 100)
        assert wire.heard[0] == b"413 too large"
        with pytest.raises(ConnectionResetError):
            wire.hear(0, 100)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_an_answer_with_a_reset_behind_it_survives_that_the_client_ends_at_once(mode) -> None:
    """The end of the request and the reset are found in the same turn, the end first."""
    with wired(**mode) as (_, wire_up):
        wire = wire_up()
        wire.say(0, b"a request that is not read")
        wire.pump(2)
        wire.finish(0)
        wire.say(1, b"413 too large")
        wire.ends[1].close()
        wire.pump(4)
        wire.hear(0, 100)
        assert wire.heard[0] == b"413 too large"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_direction_that_moves_much_is_spliced_and_one_that_slows_down_is_not(mode) -> None:
    with wired(**mode) as (plane, wire_up):
        wire = wire_up()
        (connection,) = plane.proxy.connections
        most = 0
        for _ in range(5):
            for _ in range(10):
                wire.say(0, bytes(1_000_000))  # as much as fits, so that whole buffers are there to read
            while len(wire.heard[1]) < len(wire.said[0]):
                wire.pump()
                most = max(most, connection.client.streak)
                wire.hear(1, 1 << 20)
        assert most >= plane.proxy.limits.bulk
        assert connection.server.streak == 0, "each direction by itself"
        assert bool(plane.proxy.pipes._idle) == bool(plane.proxy.limits.pipes)
        for _ in range(40):
            wire.say(0, b"small")
            wire.pump()
        assert connection.client.streak < plane.proxy.limits.bulk


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_follows_urgent_data_arrives_before_the_end(mode, told) -> None:
    """Splice stops there, and takes an end behind it for here; also where epoll has not told of either yet."""
    with wired(**mode) as (plane, wire_up):
        wire = wire_up()
        (connection,) = plane.proxy.connections
        for _ in range(3):
            wire.say(0, bytes(1_000_000))
            while len(wire.heard[1]) < len(wire.said[0]):
                wire.pump()
                wire.hear(1, 1 << 20)
        wire.ends[0].send(b"!", socket.MSG_OOB)
        if told:
            wire.pump()
        wire.say(0, b"after " * 1000)
        wire.finish(0)
        if not told:
            connection.client.ready(READ)
        wire.finish(1)
        wire.hear_all(1)
        wire.hear_all(0)
        wire.pump(2)
        assert wire.heard[1] == wire.said[0]
        assert plane.counts.active == 0


def test_what_cannot_be_spliced_is_copied(monkeypatch) -> None:
    """As a sandbox may not let us: nothing was read then."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "as told")

    monkeypatch.setattr(os, "splice", refuse)
    with wired(bulk=1) as (_, wire_up):
        wire = wire_up()
        wire.say(0, bytes(1_000_000))
        wire.finish(0)
        wire.hear_all(1)
        assert wire.heard[1] == wire.said[0]


def test_without_a_free_pipe_bytes_are_copied() -> None:
    with wired(bulk=1, pipes=1) as (plane, wire_up):
        slow, fast = wire_up(), wire_up()
        for _ in range(30):
            slow.say(0, bytes(1_000_000))
            slow.pump()
        assert plane.proxy.pipes.taken == 1
        fast.say(0, bytes(100_000))
        fast.pump(2)
        fast.finish(0)
        fast.hear_all(1)
        assert fast.heard[1] == fast.said[0]
        assert plane.proxy.pipes.taken == 1


def test_many_bytes_of_one_do_not_keep_the_others_waiting() -> None:
    """An end reads so often before the others get their turn, and is told again of what is left."""
    with wired(pipes=0) as (plane, wire_up):
        wire = wire_up()
        (connection,) = plane.proxy.connections
        reads = []
        receive = connection.client.receive

        def endless(view: memoryview) -> int:
            reads.append(receive)
            view[:] = bytes(len(view))
            return len(view)

        connection.client.receive = endless
        connection.server.send = len
        wire.say(0, b"x")
        plane.epoll._round()
        assert len(reads) == 16
        plane.epoll._round()
        assert len(reads) == 32
        connection.client.receive = receive


def test_a_backend_that_is_not_near_is_waited_for(monkeypatch) -> None:
    """The probe says so, and spurious events change nothing; then bytes of both sides that were early pass."""
    with wired() as (plane, wire_up):
        answers = iter([errno.EAGAIN, errno.EAGAIN, 0])
        monkeypatch.setattr(Connection, "_status", lambda *_: next(answers))
        wire = wire_up()
        (connection,) = plane.proxy.connections
        assert connection in plane.proxy._connecting
        wire.say(0, b"early")
        wire.pump(2)
        assert connection not in plane.proxy._connecting
        wire.say(1, b"server speaks")
        for end in (0, 1):
            wire.pump()
            wire.hear(end, 100)
        assert wire.heard == (b"server speaks", b"early")


@pytest.mark.parametrize("ephemeral", [range(0), range(65536)])
def test_a_socket_that_reached_itself_is_no_backend(ephemeral) -> None:
    """Which can only happen to ports that the kernel gives away; others are spared the question."""
    asked = []

    class Mirror:
        def send(self, data: bytes) -> int:
            return len(data)

        def getsockname(self) -> tuple[str, int]:
            asked.append(self)
            return (str(HOME), 40000)

    with wired() as (plane, wire_up):
        wire_up()
        (connection,) = plane.proxy.connections
        plane.proxy.ephemeral = ephemeral
        target = type("Target", (), {"sockaddr": (str(HOME), 40000)})
        status = connection._status(Mirror(), target)
        assert status == (errno.ECONNREFUSED if asked else 0)
        assert bool(asked) == (40000 in ephemeral)


def test_the_range_of_ports_is_the_kernels() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with wired() as (plane, _):
        assert plane.proxy.ephemeral == range(first, last + 1)
