"""A name's former address is served until nobody is told of it any more."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.moving import Moving
from dcosnet.model.net import Protocol
from dcosnet.model.vip import VipKey
from dcosnet.reconcile.diff import changed_keys

from .rig import backend

OLD, NEW, SIX = (Listener(Protocol.TCP, ip_address(text), 80) for text in ("127.11.0.1", "127.11.0.2", "fd01:c::1"))
WEB = Service(VipKey(Protocol.TCP, 80, name="/web", framework="shop"), (backend(1),), "web.l4lb")
OTHER = Service(VipKey(Protocol.TCP, 80, name="/other", framework="shop"), (backend(2),), "other.l4lb")


def take(moving, before, after, now=0.0):
    return moving.take(before, after, changed_keys(before, after), now)


def test_the_former_address_serves_under_no_name_until_its_time() -> None:
    moving = Moving(10.0)
    assert moving.due() is None
    take(moving, {OLD: WEB}, {NEW: WEB}, 5.0)
    assert moving.kept == {OLD: attrs.evolve(WEB, name=None)}
    assert moving.due() == 15.0
    assert moving.expire(14.9) == frozenset()
    assert moving.expire(15.0) == {OLD}
    assert not moving.kept


def test_what_ends_or_has_no_name_is_not_kept() -> None:
    moving = Moving(10.0)
    explicit = attrs.evolve(WEB, name=None)
    for before, after in (
        ({OLD: WEB}, {}),
        ({OLD: explicit}, {NEW: explicit}),
        ({OLD: WEB}, {SIX: WEB}),
        ({OLD: WEB}, {NEW: OTHER}),
    ):
        take(moving, before, after)
        assert not moving.kept


def test_an_address_that_another_vip_takes_is_that_ones_at_once() -> None:
    moving = Moving(10.0)
    take(moving, {OLD: WEB}, {NEW: WEB, OLD: OTHER})
    assert not moving.kept
    take(moving, {OLD: WEB}, {NEW: WEB})
    assert take(moving, {NEW: WEB}, {NEW: WEB, OLD: OTHER}) == {OLD}
    assert moving.due() is None


SERVED = st.dictionaries(st.sampled_from([OLD, NEW, SIX]), st.sampled_from([WEB, OTHER]))


@given(st.lists(st.tuples(SERVED, st.integers(0, 15)), max_size=8))
def test_what_is_kept_is_never_wanted_and_always_ends(steps) -> None:
    moving, before, now = Moving(10.0), {}, 0.0
    for after, seconds in steps:
        now += seconds
        moving.expire(now)
        take(moving, before, after, now)
        assert not moving.kept.keys() & after.keys()
        assert all(service.name is None for service in moving.kept.values())
        due = moving.due()
        assert (due is None) == (not moving.kept)
        assert due is None or now < due <= now + 10.0
        before = after
