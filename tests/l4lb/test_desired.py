"""From VIPs to listeners: families, explicit addresses, loops."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from dcosnet.l4lb.desired import Desired
from dcosnet.model.addressing import parse_range
from dcosnet.model.net import Protocol
from dcosnet.model.stamp import Stamp
from dcosnet.model.vip import Backend, Vip, VipKey
from dcosnet.reconcile.diff import changed_keys

RANGES = (parse_range("127.11.0.0-127.11.0.5"), parse_range("fd01:c::-fd01:c::5"))
TCP = Protocol.TCP


def backend(address: str, port: int = 80, weight: int = 1) -> Backend:
    return Backend(ip_address(address), port, ip_address("10.0.0.1"), weight)


def vip(key: VipKey, *backends: Backend, since: int = 1) -> Vip:
    return Vip(key, backends, Stamp(since, 0, "n") if key.name else None)


def table(*vips: Vip) -> dict[str, Vip]:
    return {str(one.key): one for one in vips}


def named(name: str, port: int = 80, protocol: Protocol = TCP) -> VipKey:
    return VipKey(protocol, port, name=name, framework="f")


def explicit(address: str, port: int = 80, protocol: Protocol = TCP) -> VipKey:
    return VipKey(protocol, port, address=ip_address(address))


def listeners(*vips: Vip) -> set[str]:
    desired = Desired(RANGES)
    desired.update(table(*vips), None)
    return {str(listener) for listener in desired.services}


addresses = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "127.11.0.1", "127.11.0.2", "127.11.0.3", "fd01:c::2", "2001:db8::1"]
)
keys = st.one_of(
    st.builds(named, st.sampled_from(["a", "/a", "b", "c"]), st.integers(80, 81), st.sampled_from(Protocol)),
    st.builds(explicit, addresses, st.integers(80, 81), st.sampled_from(Protocol)),
)
vips = st.builds(
    lambda key, backends, since: vip(key, *backends, since=since),
    keys,
    st.lists(st.builds(backend, addresses, st.integers(80, 81)), min_size=1, max_size=3, unique=True),
    st.integers(0, 3),
)


@given(st.lists(st.tuples(st.lists(vips, max_size=3), st.lists(keys, max_size=3)), max_size=8))
@settings(max_examples=300)
def test_taking_changed_keys_equals_taking_the_whole_table(steps) -> None:
    """Loops, moved addresses and explicit ones that come late included."""
    desired = Desired(RANGES)
    known: dict[str, Vip] = {}
    for come, go in steps:
        known = {key: one for key, one in known.items() if key not in set(map(str, go))} | table(*come)
        before = desired.services
        changed = desired.update(known, frozenset(map(str, go)) | table(*come).keys())
        whole = Desired(RANGES)
        whole.update(known, None)
        assert dict(desired.services) == dict(whole.services)
        assert desired.problems == whole.problems
        assert desired.refused == whole.refused
        assert changed == changed_keys(before, desired.services)
        assert not {(one.protocol, one.address, one.port) for one in desired.services} & {
            (one.protocol, back.address, back.port)
            for one, service in desired.services.items()
            for back in service.backends
        }, "no listener is another's backend"


def test_all_ports_and_protocols_of_a_name_share_its_address() -> None:
    found = listeners(
        vip(named("web"), backend("10.0.0.1")),
        vip(named("web", 81), backend("10.0.0.1")),
        vip(named("web", 80, Protocol.UDP), backend("10.0.0.1")),
    )
    assert len(found) == 3
    assert len({one.split("/")[1].rpartition(":")[0] for one in found}) == 1


def test_a_name_gets_an_address_only_of_families_it_has_backends_of() -> None:
    found = listeners(vip(named("web"), backend("10.0.0.1")), vip(named("six"), backend("2001:db8::1")))
    assert sorted(one.startswith("tcp/[") for one in found) == [False, True]


def test_a_vip_given_by_address_takes_its_own_family_only() -> None:
    desired = Desired(RANGES)
    desired.update(table(vip(explicit("192.0.2.7"), backend("10.0.0.1"), backend("2001:db8::1"))), None)
    (service,) = desired.services.values()
    assert [str(one.address) for one in service.backends] == ["10.0.0.1"]


def test_no_name_gets_an_address_that_a_vip_uses_explicitly() -> None:
    (home,) = {one.split("/")[1].rpartition(":")[0] for one in listeners(vip(named("web"), backend("10.0.0.1")))}
    found = listeners(vip(named("web"), backend("10.0.0.1")), vip(explicit(home, 443), backend("10.0.0.2")))
    assert f"tcp/{home}:443" in found
    assert f"tcp/{home}:80" not in found


def test_a_vip_that_points_at_itself_is_not_listened_for_and_says_why() -> None:
    desired = Desired(RANGES)
    desired.update(table(vip(explicit("192.0.2.7"), backend("192.0.2.7"))), None)
    assert not desired.services
    assert desired.refused == 1
    assert desired.problems[0].subject == "tcp/192.0.2.7:80 -> 192.0.2.7:80"


def test_of_two_vips_in_a_ring_neither_forwards_to_the_other() -> None:
    desired = Desired(RANGES)
    desired.update(
        table(
            vip(explicit("192.0.2.1"), backend("192.0.2.2"), backend("10.0.0.1")),
            vip(explicit("192.0.2.2"), backend("192.0.2.1")),
        ),
        None,
    )
    (listener,) = desired.services
    assert str(listener) == "tcp/192.0.2.1:80"
    assert [str(one.address) for one in desired.services[listener].backends] == ["10.0.0.1"]
    assert desired.refused == 2


def test_a_label_that_cannot_be_had_takes_nobody_s_backend() -> None:
    """Somebody gives a VIP the address and port of another's backend, where that backend listens already."""
    desired = Desired(RANGES)
    desired.update(table(vip(named("web"), backend("10.0.0.1")), vip(explicit("10.0.0.1"), backend("10.0.0.9"))), None)
    assert {str(one) for one in desired.services} == {"tcp/10.0.0.1:80"}
    [taken] = desired.services
    changed = desired.take_absent([taken])
    assert [one.address in RANGES[0] for one in changed] == [True]
    assert len(desired.services) == 2
    assert not desired.refused
    assert desired.take_absent([]) == changed
    assert list(desired.services) == [taken]


@settings(max_examples=200)
@given(st.lists(vips, max_size=6), st.randoms(use_true_random=False))
def test_whatever_is_absent_nothing_goes_round(some, rng) -> None:
    desired = Desired(RANGES)
    desired.update(table(*some), None)
    for _ in range(4):
        absent = {one for one in desired.services if rng.random() < 0.5}
        before = dict(desired.services)
        changed = desired.take_absent(absent)
        after = desired.services
        assert changed == {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}
        for listener, service in after.items():
            targets = {type(listener)(listener.protocol, one.address, one.port) for one in service.backends}
            assert listener not in targets
            assert not targets & (after.keys() - absent)
    whole = Desired(RANGES)
    whole.take_absent(absent)
    whole.update(table(*some), None)
    assert whole.services == desired.services


def test_a_range_that_is_full_is_told_and_hurts_nobody_else() -> None:
    desired = Desired((parse_range("127.11.0.0-127.11.0.1"),))
    desired.update(
        table(*(vip(named(name), backend("10.0.0.1"), since=i) for i, name in enumerate(["a", "b", "c"]))), None
    )
    assert 0 < len(desired.services) < 3
    assert all("all addresses of 127.11.0.0-127.11.0.1 are taken" in one.reason for one in desired.problems)
    assert len(desired.problems) + len(desired.services) == 3


def test_a_draining_backend_stays_in_the_service() -> None:
    desired = Desired(RANGES)
    desired.update(table(vip(named("web"), backend("10.0.0.1", weight=0))), None)
    (service,) = desired.services.values()
    assert service.backends[0].draining


def test_udp_and_tcp_do_not_make_a_loop() -> None:
    found = listeners(
        vip(explicit("192.0.2.1"), backend("192.0.2.2")),
        vip(explicit("192.0.2.2", 80, Protocol.UDP), backend("10.0.0.1")),
    )
    assert found == {"tcp/192.0.2.1:80", "udp/192.0.2.2:80"}
