"""Sockets of VIPs: opened, kept by another, taken over."""

from __future__ import annotations

import socket
from contextlib import closing

import attrs
import pytest

from dcosnet.l4lb.sockets import KEPT_MAX, Sockets
from dcosnet.model.net import Protocol

from .rig import VIP, free_port, listener


@attrs.define
class Told:
    """A notifier that remembers."""

    lines: list[str] = attrs.Factory(list)
    there: bool = True

    def __bool__(self) -> bool:
        return self.there

    def tell(self, *lines, descriptors=()) -> None:
        assert all(descriptor >= 0 for descriptor in descriptors)
        self.lines.append(" ".join(lines))


@pytest.fixture
def bound():
    made = []

    def bind(kind=socket.SOCK_STREAM, listen=True):
        sock = socket.socket(socket.AF_INET, kind)
        sock.bind((str(VIP), 0))
        if listen and kind == socket.SOCK_STREAM:
            sock.listen()
        made.append(sock)
        return sock, sock.getsockname()[1]

    yield bind
    for sock in made:
        sock.close()


def test_what_is_opened_is_kept_until_it_is_gone() -> None:
    told = Told()
    sockets = Sockets(told)
    tcp, udp = listener(free_port()), listener(free_port(socket.SOCK_DGRAM), Protocol.UDP)
    with closing(sockets.open(tcp)), closing(sockets.open(udp)) as datagrams:
        assert not datagrams.getblocking()
        assert told.lines == ["FDSTORE=1 FDNAME=vip-1 FDPOLL=0", "FDSTORE=1 FDNAME=vip-2 FDPOLL=0"]
    sockets.gone(tcp)
    sockets.gone(tcp)
    assert told.lines[2:] == ["FDSTOREREMOVE=1 FDNAME=vip-1"]


def test_what_another_process_left_is_taken_by_what_it_is_bound_to(bound) -> None:
    told = Told()
    sockets = Sockets(told)
    (tcp, one), (udp, two) = bound(), bound(socket.SOCK_DGRAM)
    sockets.inherit({"vip-1": tcp, "vip-2": udp})
    assert sockets.left == 2
    assert sockets.open(listener(one)) is tcp
    assert not tcp.getblocking()
    with closing(sockets.open(listener(free_port()))):
        assert told.lines == ["FDSTORE=1 FDNAME=vip-3 FDPOLL=0"], "a name that is in use is not given again"
    sockets.sweep()
    assert udp.fileno() == -1
    assert told.lines[1:] == ["FDSTOREREMOVE=1 FDNAME=vip-2"]
    with closing(sockets.open(listener(two, Protocol.UDP))) as again:
        assert again.getsockname()[1] == two


def test_what_cannot_be_a_vips_is_given_up(bound) -> None:
    told = Told()
    sockets = Sockets(told)
    (silent, _), (unix, other) = bound(listen=False), socket.socketpair()
    first, _ = bound()
    twice = first.dup()
    sockets.inherit({"vip-1": silent, "vip-2": unix, "vip-3": first, "vip-4": twice})
    assert [silent.fileno(), unix.fileno(), twice.fileno()] == [-1, -1, -1]
    assert first.fileno() != -1
    assert sorted(told.lines) == [f"FDSTOREREMOVE=1 FDNAME=vip-{number}" for number in (1, 2, 4)]
    sockets.close()
    assert first.fileno() == -1
    other.close()
    assert len(told.lines) == 3, "what is only not asked for yet stays kept"


def test_no_more_are_kept_than_names_fit_into_the_environment(bound, monkeypatch) -> None:
    monkeypatch.setattr("dcosnet.l4lb.sockets.KEPT_MAX", 1)
    told = Told()
    sockets = Sockets(told)
    with closing(sockets.open(listener(free_port()))), closing(sockets.open(listener(free_port()))):
        assert len(told.lines) == 1
    assert len("vip-99999:") * KEPT_MAX < 128 * 1024


def test_where_nobody_keeps_them_nothing_is_told() -> None:
    told = Told(there=False)
    sockets = Sockets(told)
    one = listener(free_port())
    with closing(sockets.open(one)):
        sockets.gone(one)
    assert told.lines == []
