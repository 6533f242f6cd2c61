"""The second driver, on the reactor that really runs."""

from __future__ import annotations

import os
import socket

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from dcosnet.io.epoll import EDGE, HANGUP, READ, WRITE, InnerEpoll


@pytest.fixture
def reactor():
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def inner(reactor):
    made = InnerEpoll(reactor)
    made.start()
    yield made
    made.close()


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    yield one, other
    one.close()
    other.close()


@pytest_twisted.ensureDeferred
async def test_a_readable_descriptor_is_told_by_the_reactor(inner, pair, reactor) -> None:
    one, other = pair
    told: Deferred[int] = Deferred()

    def ready(mask: int) -> None:
        one.recv(10)
        told.callback(mask)

    inner.add(one.fileno(), READ, ready)
    other.send(b"x")
    assert await told.addTimeout(10, reactor) & READ
    assert len(inner) == 1


def test_what_is_not_asked_for_is_not_told(inner, pair) -> None:
    one, other = pair
    seen: list[int] = []
    inner.add(one.fileno(), READ, seen.append)
    inner.doRead()
    assert seen == []
    inner.modify(one.fileno(), READ | WRITE)
    inner.doRead()
    assert seen == [WRITE]
    other.send(b"x")
    inner.rebind(one.fileno(), READ, lambda mask: seen.append(-mask))
    inner.doRead()
    assert seen == [WRITE, -READ]


def test_a_descriptor_removed_within_the_same_turn_is_not_told(inner, pair) -> None:
    """Each of two ready descriptors removes the other; only the first is called."""
    one, other = pair
    called = []

    def ready(me, peer):
        called.append(me)
        inner.remove(peer.fileno())

    inner.add(one.fileno(), WRITE, lambda _mask: ready(one, other))
    inner.add(other.fileno(), WRITE, lambda _mask: ready(other, one))
    inner.doRead()
    assert len(called) == 1


def test_a_new_descriptor_does_not_get_the_event_of_a_closed_one_with_its_number(inner, pair) -> None:
    """Accept and close within one turn make the kernel hand out the same numbers again."""
    one, other = pair
    third, fourth = socket.socketpair()
    seen = []

    def replace(_mask: int) -> None:
        # Whichever of the two is told first: close the other, put an idle one in its place.
        for sock in (one, other):
            inner.remove(sock.fileno())
        victim = other if not seen else one
        seen.append("first")
        number = victim.fileno()
        os.dup2(third.fileno(), number)
        inner.add(number, READ | WRITE, seen.append)

    try:
        inner.add(one.fileno(), WRITE, replace)
        inner.add(other.fileno(), WRITE, replace)
        inner.doRead()
        assert seen == ["first"]
        inner.doRead()
        assert seen == ["first", WRITE], "the next turn tells what is true"
    finally:
        third.close()
        fourth.close()


def test_a_callback_that_breaks_is_logged_counted_and_watched_no_longer(inner, pair) -> None:
    """One connection's defect must not stop the others, nor be told for ever."""
    one, other = pair
    logged = []
    globalLogPublisher.addObserver(logged.append)
    seen: list[int] = []

    def broken(_mask: int) -> None:
        raise RuntimeError("a defect")

    try:
        inner.add(one.fileno(), WRITE, broken)
        inner.add(other.fileno(), WRITE, seen.append)
        inner.doRead()
        inner.doRead()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert inner.errors == 1
    assert len(seen) == 2
    assert len([event for event in logged if "log_failure" in event]) == 1


@pytest_twisted.ensureDeferred
async def test_timers_go_on_while_descriptors_are_always_ready(inner, pair, reactor) -> None:
    inner.add(pair[0].fileno(), WRITE, lambda _mask: None)
    await deferLater(reactor, 0.01)


def test_what_broke_may_still_be_changed_and_removed(inner, pair) -> None:
    """Its owner does not know that it broke; the owner's own end must not break too."""

    def broken(_mask: int) -> None:
        raise RuntimeError("a defect")

    one, _ = pair
    inner.add(one.fileno(), WRITE, broken)
    inner.doRead()
    assert inner.errors == 1
    inner.modify(one.fileno(), READ)
    inner.remove(one.fileno())
    inner.forget(one.fileno())
    assert len(inner) == 0


def test_a_callback_that_breaks_after_it_closed_its_descriptor_hurts_no_other(inner, pair) -> None:
    one, other = pair
    seen: list[int] = []

    def broken(_mask: int) -> None:
        one.close()
        raise RuntimeError("a defect")

    inner.add(one.fileno(), WRITE, broken)
    inner.add(other.fileno(), READ, seen.append)
    inner.doRead()
    inner.doRead()
    assert inner.errors == 1
    assert seen, "the other side hung up, which is told"


def test_one_turn_is_bounded_however_many_are_ready(inner, pair) -> None:
    called: list[int] = []
    descriptors = [os.dup(pair[0].fileno()) for _ in range(400)]
    try:
        for descriptor in descriptors:
            inner.add(descriptor, WRITE, called.append)
        inner.doRead()
        assert len(called) == 256
    finally:
        for descriptor in descriptors:
            inner.remove(descriptor)
            os.close(descriptor)


def test_an_edge_is_told_once_and_again_when_it_is_changed(inner, pair) -> None:
    one, other = pair
    seen: list[int] = []
    inner.add(one.fileno(), READ | EDGE, seen.append)
    other.send(b"x")
    for _ in range(3):
        inner.doRead()
    assert seen == [READ]
    inner.modify(one.fileno(), READ | EDGE)
    inner.doRead()
    assert seen == [READ, READ]


def test_a_new_descriptor_watched_by_edges_loses_nothing_to_one_that_had_its_number(inner, pair) -> None:
    """The old one's event is skipped; what is true of the new one was so before it was added, and is told."""
    one, other = pair
    third, fourth = socket.socketpair()
    fourth.send(b"here before it was watched")
    seen = []

    def replace(_mask: int) -> None:
        for sock in (one, other):
            inner.remove(sock.fileno())
        victim = other if not seen else one
        seen.append("first")
        os.dup2(third.fileno(), victim.fileno())
        inner.add(victim.fileno(), READ | HANGUP | EDGE, seen.append)

    try:
        inner.add(one.fileno(), WRITE | EDGE, replace)
        inner.add(other.fileno(), WRITE | EDGE, replace)
        inner._round()
        assert seen == ["first"]
        for _ in range(2):
            inner._round()
        assert seen == ["first", READ]
        fourth.close()
        inner._round()
        assert seen[2] & HANGUP
    finally:
        third.close()
        fourth.close()


def test_one_that_closes_it_all_is_the_last_that_is_called(inner, pair) -> None:
    called = []

    def close(_mask: int) -> None:
        called.append(None)
        inner.close()

    for sock in pair:
        inner.add(sock.fileno(), WRITE, close)
    inner.doRead()
    assert len(called) == 1
