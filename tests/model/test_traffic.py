"""Counts of flows add up."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, VipTraffic
from dcosnet.model.vip import VipKey

counts = st.integers(0, 1000)
flows = st.builds(
    Flows,
    taken=counts,
    active=counts,
    failures=st.dictionaries(st.sampled_from(["refused", "timeout"]), counts),
    retries=counts,
    to_backend=counts,
    to_client=counts,
    idle_closed=counts,
    bounds=st.just((0.1, 1.0)),
    connects=st.tuples(counts, counts, counts),
    connect_seconds=counts.map(float),
)


@given(flows, flows, flows)
def test_sums_do_not_depend_on_the_order(one: Flows, two: Flows, three: Flows) -> None:
    assert (one + two) + three == one + (two + three)
    assert one + two == two + one


@given(flows)
def test_nothing_adds_nothing(one: Flows) -> None:
    """Also no bounds to one who has some, and none to nobody."""
    assert one + Flows() == Flows() + one == one
    assert Flows() + Flows() == Flows()
    assert not Flows().used


@given(flows)
def test_the_histogram_has_the_connects(one: Flows) -> None:
    histogram = one.histogram
    assert (histogram.bounds, tuple(histogram.counts), histogram.sum) == (one.bounds, one.connects, one.connect_seconds)
    assert histogram.count == sum(one.connects)


def test_a_backend_of_two_listeners_is_told_once() -> None:
    """While a name moves both its addresses are served."""
    home, other = (Endpoint(ip_address("10.0.0.1"), port) for port in (1, 2))
    listeners = [
        ListenerTraffic(
            Protocol.TCP, other, None, [BackendTraffic(home, 1, Flows(taken=1)), BackendTraffic(other, 1, Flows())]
        ),
        ListenerTraffic(Protocol.TCP, home, None, [BackendTraffic(home, 0, Flows(taken=2))]),
    ]
    traffic = VipTraffic(VipKey(Protocol.TCP, 80, name="web", framework="shop"), Flows(), listeners)
    assert [(one.endpoint, one.weight, one.flows.taken) for one in traffic.backends()] == [(home, 1, 3), (other, 1, 0)]
