"""What a node still has to the backends that drain."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.drain.count import count
from dcosnet.model.drain import Drain, DrainedHost, Left, Progress
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.snapshot import Owned
from dcosnet.model.stamp import Stamp
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, VipTraffic
from dcosnet.model.vip import VipKey

HOST = ip_address("10.0.0.1")
ONE, TWO = Endpoint(HOST, 8001), Endpoint(HOST, 8002)
A, B = "drain/host/a", "drain/host/b"


def drains(*keys: str, on: bool = True) -> dict[str, Owned[Drain]]:
    return {key: Owned(Drain(DrainedHost(key[-1]), since=5.0, on=on), "a", Stamp(1, 0, "a")) for key in keys}


def vip(port: int, *backends: tuple[Endpoint, int, int]) -> dict[str, VipTraffic]:
    key = VipKey(Protocol.TCP, port, name="/web", framework="shop")
    told = [BackendTraffic(endpoint, weight, Flows(active=active)) for endpoint, active, weight in backends]
    return {str(key): VipTraffic(key, Flows(), [ListenerTraffic(Protocol.TCP, Endpoint(HOST, port), None, told)])}


def test_flows_of_all_vips_of_a_backend_are_told_together() -> None:
    drained = {"tcp//web.shop:1": {ONE: (A,)}, "tcp//web.shop:2": {ONE: (A,), TWO: (B,)}}
    plane = vip(1, (ONE, 3, 0), (TWO, 9, 1)) | vip(2, (ONE, 4, 0), (TWO, 1, 0))
    assert count(drains(A, B), drained, [plane]) == {
        A: Progress(5.0, {"tcp/10.0.0.1:8001": Left(7)}),
        B: Progress(5.0, {"tcp/10.0.0.1:8002": Left(1)}),
    }


def test_a_backend_that_the_plane_still_gives_new_flows_is_told_also_without_any() -> None:
    """The table says zero; the listener has not heard of it yet."""
    told = count(drains(A), {"tcp//web.shop:1": {ONE: (A,)}}, [vip(1, (ONE, 0, 1))])
    assert told == {A: Progress(5.0, {"tcp/10.0.0.1:8001": Left(0, taking=True)})}


def test_where_nothing_is_left_that_is_told_too() -> None:
    """Who says nothing would be waited for: nodes without traffic say so, also of drains that concern nobody."""
    assert count(drains(A), {}, []) == {A: Progress(5.0)}
    assert count(drains(A), {"tcp//web.shop:1": {ONE: (A,)}}, [vip(1, (ONE, 0, 0))]) == {A: Progress(5.0)}


def test_of_drains_that_were_ended_nothing_is_told() -> None:
    """Also where the table of VIPs has not heard of the end."""
    assert count(drains(A, on=False), {"tcp//web.shop:1": {ONE: (A,)}}, [vip(1, (ONE, 3, 0))]) == {}


@given(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 3))
def test_the_planes_of_a_node_add_up(flows, ports) -> None:
    """However flows are spread over planes and VIPs."""
    drained = {f"tcp//web.shop:{port + 1}": {ONE: (A,)} for port in range(4)}
    planes = [vip(1 + number % (ports + 1), (ONE, active, 0)) for number, active in enumerate(flows)]
    left = count(drains(A), drained, planes)[A].left
    assert sum(one.flows for one in left.values()) == sum(flows)
