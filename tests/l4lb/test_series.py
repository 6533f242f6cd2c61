"""Series of VIPs and backends: who has them, and how many there may be."""

from __future__ import annotations

from ipaddress import ip_address

import attrs

from dcosnet.l4lb.series import Series
from dcosnet.l4lb.tally import Reason
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, VipTraffic
from dcosnet.model.vip import VipKey

HOME = ip_address("10.0.0.1")
USED = Flows(
    taken=3, active=1, failures={**dict.fromkeys(Reason, 0), Reason.REFUSED: 1}, to_backend=5,
    bounds=(0.1,), connects=(2, 1), connect_seconds=0.5,
)  # fmt: skip


def traffic(*ports: int, flows: Flows = USED, name: str = "/web", protocol=Protocol.TCP) -> VipTraffic:
    key = VipKey(protocol, 80, name=name, framework="shop")
    backends = [BackendTraffic(Endpoint(HOME, port), 1, flows) for port in ports]
    listener = ListenerTraffic(protocol, Endpoint(ip_address("11.0.0.1"), 80), None, backends)
    return VipTraffic(key, sum([flows] * len(ports), Flows()), [listener])


def collect(series: Series, *some: VipTraffic):
    return {metric.name.removeprefix("dcosnet_l4lb_"): metric for metric in series.collect(dict(enumerate(some)))}


def ports(families) -> list[int]:
    samples = families["backend_connections_total"].samples
    return sorted(int(one.labels["backend"].rpartition(":")[2]) for one in samples)


def untold(families) -> dict[str, float]:
    return {one.labels["of"]: one.value for one in families["untold"].samples}


def test_a_backend_has_its_labels_and_its_counts() -> None:
    families = collect(Series(), traffic(1))
    (sample,) = families["backend_connections_total"].samples
    assert sample.value == 3
    assert sample.labels == {
        "vip": "web.shop.l4lb.thisdcos.directory:80",
        "protocol": "tcp",
        "address": "11.0.0.1:80",
        "backend": "10.0.0.1:1",
    }
    assert {one.labels["reason"]: one.value for one in families["backend_failures_total"].samples} == USED.failures
    ((_labels, histogram),) = families["backend_connect_seconds"].histograms
    assert (histogram.bounds, histogram.counts, histogram.sum) == ((0.1,), [2, 1], 0.5)


def test_who_had_no_flow_has_no_series() -> None:
    """Ten thousand VIPs of which ten are used cost ten."""
    families = collect(Series(), traffic(1, 2, flows=Flows()))
    assert not any(metric.samples for name, metric in families.items() if name != "untold")


def test_beyond_the_bound_backends_are_counted_and_those_shown_stay() -> None:
    """A series that comes and goes with others' luck is worse than none."""
    series = Series(2 * 27)
    assert ports(collect(series, traffic(5, 7))) == [5, 7]
    families = collect(series, traffic(1, 5, 6, 7))
    assert ports(families) == [5, 7]
    assert untold(families) == {"vips": 0, "backends": 2}
    assert ports(collect(series, traffic(1, 6, 7))) == [1, 7]


def test_the_series_are_no_more_than_was_said() -> None:
    """Samples of a scrape, with those of histograms, for VIPs and for backends each."""
    one = traffic(*range(1, 200), flows=attrs.evolve(USED, bounds=tuple(range(14)), connects=(1,) * 15))
    families = collect(Series(1000), one, *(traffic(1, name=f"n{i}") for i in range(300)))
    for prefix in ("vip_", "backend_"):
        some = [metric for name, metric in families.items() if name.startswith(prefix)]
        count = sum(len(metric.samples) for metric in some)
        count += sum(len(histogram.counts) + 2 for metric in some for _, histogram in metric.histograms)
        assert 900 <= count <= 1000
    assert untold(families)["vips"] > 0


def test_two_vips_of_one_name_are_told_as_one() -> None:
    """Labels that come twice would spoil the scrape."""
    families = collect(Series(), traffic(1), attrs.evolve(traffic(2, name="web"), listeners=()))
    (sample,) = families["vip_connections_total"].samples
    assert sample.value == 6


def test_udp_has_no_connect_times() -> None:
    families = collect(Series(), traffic(1, protocol=Protocol.UDP))
    assert families["backend_connections_total"].samples
    assert not families["backend_connect_seconds"].histograms
