"""What may be drained, as text and back; and how far a drain has come, of what nodes tell."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.drain import (
    DrainedBackend,
    DrainedHost,
    DrainedService,
    DrainedTask,
    Left,
    Progress,
    key_of,
    overall,
    parse_drainable,
)
from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.snapshot import Owned
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import TaskId
from dcosnet.testing import strategies

HOST = ip_address("10.0.0.1")
WEB = Endpoint(HOST, 8000)
KEY = "drain/host/host-a"


@given(strategies.drainables)
def test_a_text_in_full_means_what_it_was_made_of(what) -> None:
    """The key in the store is all that says what is drained."""
    assert parse_drainable(str(what)) == what
    assert key_of(what) == f"drain/{what}"


@given(st.text(max_size=40))
def test_any_text_means_something_in_full_or_is_a_plain_name_or_is_refused_with_a_sentence(text) -> None:
    try:
        what = parse_drainable(text)
    except ValueError as error:
        assert str(error)
    else:
        assert what is None or parse_drainable(str(what)) == what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("10.0.0.1:8000", DrainedBackend(WEB)),
        ("tcp/10.0.0.1:8000", DrainedBackend(WEB, Protocol.TCP)),
        ("[fd00::1]:53", DrainedBackend(Endpoint(ip_address("fd00::1"), 53))),
        ("10.0.0.1", DrainedHost(HOST)),
        ("fd00::1", DrainedHost(ip_address("fd00::1"))),
        ("host/10.0.0.1", DrainedHost(HOST)),
        ("host/host-a.example", DrainedHost("host-a.example")),
        ("service/dev%2Fshop/web", DrainedService("dev/shop", "web")),
        ("task/f/a%2Fb", DrainedTask(TaskId("f", "a/b"))),
        ("web.shop", None),
        ("a/b", None),
    ],
)
def test_texts_that_people_write(text, what) -> None:
    assert parse_drainable(text) == what


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("a\nb", "it has characters that cannot be printed"),
        ("10.0.0.1:0", "port 0 is not between 1 and 65535"),
        ("web:80", "'web' is not an IPv4 or IPv6 address"),
        ("udp/10.0.0.1", "'10.0.0.1' has no port; write ADDRESS:PORT"),
        ("backend/sctp/10.0.0.1:80", "'sctp' is neither tcp nor udp"),
        ("host/", "it is not host/NAME or host/ADDRESS; a slash inside a name is written %2F"),
        ("service/web", "it is not service/GROUP/NAME; a slash inside a name is written %2F"),
        ("task/f/a/b", "it is not task/FRAMEWORK/ID; a slash inside a name is written %2F"),
    ],
)
def test_nonsense_is_refused_with_what_is_wrong(text, reason) -> None:
    with pytest.raises(ValueError) as caught:
        parse_drainable(text)
    assert str(caught.value) == reason


def told(owner: str, **left: Left) -> Owned:
    return Owned({KEY: Progress(5.0, left)}, owner, Stamp(1, 0, owner))


def members(*names: str, **states: MemberState) -> dict[str, Member]:
    return {name: Member(name, (HOST,), states.get(name, MemberState.ALIVE)) for name in (*names, *states)}


def test_a_drain_is_done_when_everybody_has_nothing_left() -> None:
    """Flows of all nodes count together."""
    some = [told("a", x=Left(2)), told("b", x=Left(1), y=Left(4))]
    so_far = overall(KEY, 5.0, some, members("a", "b"))
    assert (so_far.flows, so_far.of("x"), so_far.silent, so_far.done) == (7, Left(3), (), False)
    assert overall(KEY, 5.0, [told("a"), told("b")], members("a", "b")).done


def test_who_has_not_told_of_this_drain_is_waited_for_unless_it_is_gone() -> None:
    """A word on an earlier drain of the same is none; a host that is dead or has left carries nothing."""
    before = Owned({KEY: Progress(4.0)}, "b", Stamp(1, 0, "b"))
    here = members("a", "b", c=MemberState.UNREACHABLE, d=MemberState.DEAD, e=MemberState.LEFT)
    so_far = overall(KEY, 5.0, [told("a"), before], here)
    assert (so_far.silent, so_far.done) == (("b", "c"), False)


def test_a_backend_that_is_given_new_flows_is_not_drained() -> None:
    so_far = overall(KEY, 5.0, [told("a", x=Left(0, taking=True))], members("a"))
    assert (so_far.flows, so_far.taking, so_far.done) == (0, ("a",), False)
