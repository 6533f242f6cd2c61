"""dcos-net's registries: their names, made of our counts."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dcosnet.model.metric import Histogram, Metric, Sample
from dcosnet.model.rest import RestRequest
from dcosnet.ops.registries import REGISTRIES, translate
from dcosnet.ops.rest.metrics import Registry
from dcosnet.testing.contracts.rest import RestResourceContract, ask


class Gossip:
    """A part that counts."""

    name = "gossip"

    def collect(self):
        states = {"alive": 7, "unreachable": 2, "dead": 1, "left": 4}
        yield Metric("dcosnet_gossip_members", "M.", "gauge", [Sample(n, {"state": s}) for s, n in states.items()])
        yield Metric("dcosnet_gossip_links", "Links.", "gauge", [Sample(8)])
        frames = {
            ("in", "change"): 5,
            ("in", "digest"): 2,
            ("in", "pull"): 3,
            ("out", "change"): 11,
            ("out", "ping"): 13,
        }
        yield Metric(
            "dcosnet_gossip_frames_total",
            "Frames.",
            "counter",
            [Sample(count, {"direction": way, "type": kind}) for (way, kind), count in frames.items()],
        )


def scrape(name: str, *parts: object) -> str:
    reply = ask(Registry(list(parts)), RestRequest("GET", f"/v1/metrics/{name}", {"registry": name}))
    assert reply.status == 200
    return reply.body.decode()


def lines(text: str) -> set[str]:
    return {line for line in text.splitlines() if not line.startswith("#")}


def test_the_registry_lashup_has_lashups_names() -> None:
    """Dashboards of DC/OS go on; what is counted apart here is added up where lashup had one number."""
    text = scrape("lashup", Gossip())
    assert lines(text) == {
        "hyparview_active_view_size 8.0",
        'hyparview_outgoing_messages_total{type="change"} 11.0',
        'hyparview_outgoing_messages_total{type="ping"} 13.0',
        "gm_members 10.0",
        "gm_unreachable_nodes 3.0",
        "mc_incoming_packets_total 5.0",
        "aae_rx_messages_total 5.0",
    }
    assert "# TYPE gm_members gauge\n" in text
    assert "# TYPE mc_incoming_packets_total counter\n" in text


def test_what_no_part_counts_is_left_out() -> None:
    """A zero would say that it was counted, and none was there."""
    assert "mc_incoming_bytes_total" not in scrape("lashup", Gossip())
    assert lines(scrape("mesos_listener", Gossip())) == set()
    assert lines(scrape("l4lb", Gossip())) == {"unreachable_nodes 3.0"}


def test_an_unknown_registry_is_refused_as_dcos_net_did() -> None:
    """And the answer names those that are there."""
    reply = ask(Registry([]), RestRequest("GET", "/v1/metrics/spartan", {"registry": "spartan"}))
    assert reply.status == 404
    assert reply.body["error"] == "Unknown Registry"
    assert "lashup" in reply.body["remedy"]


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_registry_has_each_name_once(registry: str) -> None:
    """Prometheus refuses a scrape with a family twice."""
    names = [alias.name for alias in REGISTRIES[registry]]
    assert len(names) == len(set(names))


def test_asking_a_registry_that_is_none_is_an_error_of_the_caller() -> None:
    with pytest.raises(KeyError):
        translate("spartan", [])


class Balancer:
    """A part that balances: one backend behind a named VIP and one behind an address of IPv6."""

    name = "l4lb"

    def collect(self):
        named = {"vip": "web.shop.l4lb.thisdcos.directory:80", "protocol": "tcp", "address": "11.0.0.1:80"}
        plain = {"vip": "fd00::7:53", "protocol": "tcp", "address": "[fd00::7]:53"}
        ends = [{**named, "backend": "10.0.0.1:8001"}, {**plain, "backend": "[fd00::1]:53"}]
        yield Metric("dcosnet_l4lb_backend_connections_total", "C.", "counter", [Sample(3, end) for end in ends])
        failures = [Sample(2, {**ends[0], "reason": "refused"}), Sample(1, {**ends[0], "reason": "timeout"})]
        yield Metric("dcosnet_l4lb_backend_failures_total", "F.", "counter", failures)
        times = Histogram([0.001, 0.1])
        times.observe(0.05)
        yield Metric("dcosnet_l4lb_backend_connect_seconds", "T.", "histogram", histograms=[(ends[0], times)])
        yield Metric("dcosnet_l4lb_round_seconds", "R.", "histogram", histograms=[({}, times)])


def test_the_registry_l4lb_has_minutemans_connections() -> None:
    """By VIP and backend as IP_PORT and the VIP's name; latency in nanoseconds, as they had it."""
    text = scrape("l4lb", Balancer())
    tags = 'backend="10.0.0.1_8001",name="web.shop.l4lb.thisdcos.directory",vip="11.0.0.1_80"'
    told = lines(text)
    assert f"mm_connect_successes{{{tags}}} 3.0" in told
    assert 'mm_connect_successes{backend="fd00::1_53",name="fd00::7",vip="fd00::7_53"} 3.0' in told
    assert f"mm_connect_failures{{{tags}}} 3.0" in told
    assert f'mm_connect_latency_bucket{{backend="10.0.0.1_8001",le="1e+08",{tags.partition(",")[2]}}} 1.0' in told
    assert f"mm_connect_latency_sum{{{tags}}} 5e+07" in told
    assert {"vips_duration_seconds_count 1.0", "vips_duration_seconds_sum 0.05"} < told
    assert "# TYPE vips_duration_seconds summary\n" in text
    assert "# TYPE mm_connect_successes untyped\n" in text, "the sample has this very name"
    assert list(text_string_to_metric_families(text))


class TestContract(RestResourceContract):
    """The resource keeps the contract; "x" is no registry, and that is an answer."""

    @pytest.fixture
    def resource(self):
        return Registry([Gossip()])
