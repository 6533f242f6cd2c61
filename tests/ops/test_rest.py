"""The resources: what dcos-net's clients and our own command read."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from types import SimpleNamespace

import attrs
import pytest
from twisted.internet.protocol import ServerFactory

from dcosnet.interfaces import IMembership, IRestResource, ITaskSource, ITraffic, IViews, IZone
from dcosnet.io.turns import Turns
from dcosnet.model.facts import Problem, SourceStatus
from dcosnet.model.metric import Histogram, Metric, Sample
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, Use, VipTraffic
from dcosnet.ops.connections import Bounded
from dcosnet.ops.counts import OpsMetrics
from dcosnet.ops.http import Counts, encode
from dcosnet.ops.rest.hosts import Hosts
from dcosnet.ops.rest.livez import Live
from dcosnet.ops.rest.members import Members
from dcosnet.ops.rest.metrics import Metrics, process_registry
from dcosnet.ops.rest.nodes import Nodes
from dcosnet.ops.rest.page import Page
from dcosnet.ops.rest.readyz import Ready
from dcosnet.ops.rest.records import Records
from dcosnet.ops.rest.services import Services
from dcosnet.ops.rest.sources import Sources
from dcosnet.ops.rest.status import Status
from dcosnet.ops.rest.tasks import Tasks, label_problems
from dcosnet.ops.rest.version import Version
from dcosnet.ops.rest.vips import Vips
from dcosnet.testing.contracts.rest import RestResourceContract, ask, get

NAME = "web.shop.l4lb.thisdcos.directory"


def make(toolbox) -> dict[str, IRestResource]:
    views, zones = toolbox[IViews], toolbox.all(IZone)
    sources = toolbox.all(ITaskSource)
    resources = [
        Version("1.2.3"),
        Vips(views, zones, toolbox.all(ITraffic), toolbox.later),
        Records(zones),
        Hosts(zones),
        Services(zones),
        Tasks(views),
        Sources(sources),
        Members("host-a", toolbox[IMembership]),
        Nodes(views, toolbox.reactor),
        Status(toolbox, lambda: 12.5),
        Live(),
        Ready(toolbox),
        Metrics([OpsMetrics(toolbox, Counts(), Bounded(ServerFactory()))], process_registry(), toolbox.later),
        Page(toolbox, views, zones, sources, toolbox[IMembership], toolbox.all(ITraffic), lambda: 12.5),
    ]
    return {resource.path: resource for resource in resources}


PATHS = [
    "/", "/livez", "/metrics", "/readyz", "/v1/hosts/<name>", "/v1/members", "/v1/nodes", "/v1/records",
    "/v1/services/<name>", "/v1/sources", "/v1/status", "/v1/tasks", "/v1/version", "/v1/vips",
]  # fmt: skip


class TestContract(RestResourceContract):
    """Every resource of ours keeps the contract."""

    @pytest.fixture(params=PATHS)
    def resource(self, request, toolbox):
        return make(toolbox)[request.param]


def test_the_suite_sees_every_resource_of_ours(toolbox) -> None:
    """A resource that is added is on trial, too."""
    assert sorted(make(toolbox)) == PATHS


@pytest.fixture
def resources(toolbox) -> dict[str, IRestResource]:
    return make(toolbox)


def named(resource: IRestResource, name: str) -> object:
    from dcosnet.model.rest import RestRequest

    return ask(resource, RestRequest("GET", "/", {"name": name})).body


def body(resources, path: str, **query: str) -> object:
    reply = get(resources[path], query)
    assert reply.status == 200
    return json.loads(encode(reply.body))


def test_version_is_what_probes_look_for(resources) -> None:
    """Clients of dcos-net compare the service's name."""
    assert body(resources, "/v1/version") == {"Service": "dcos-dns", "Version": "1.2.3"}


def test_vips_have_the_shape_of_dcos_net(resources) -> None:
    """Names end in the zone; IPv6 stands without brackets; backends of weight zero are there."""
    assert body(resources, "/v1/vips") == [
        {
            "vip": f"{NAME}:8000",
            "protocol": "tcp",
            "backend": [{"ip": "127.0.0.1", "port": 8001}, {"ip": "127.0.0.1", "port": 8002}],
        },
        {"vip": "fd00::7:53", "protocol": "udp", "backend": [{"ip": "127.0.0.1", "port": 5300}]},
    ]


def test_vips_tell_more_when_asked(resources) -> None:
    """`?detail` adds the addresses that the zone gives, weights, and who drains; nobody serves them here."""
    first, second = body(resources, "/v1/vips", detail="")
    assert first["address"] == ["127.11.3.4", "fd01:c::9"]
    assert first["backend"][0] == {
        "ip": "127.0.0.1", "port": 8001, "weight": 1, "draining": False, "use": None, "seconds": 0, "why": None,
        "latency_seconds": None, "counts": None, "drains": [],
    }  # fmt: skip
    assert (first["backend"][1]["weight"], first["backend"][1]["draining"]) == (0, True)
    assert (first["state"], first["listeners"]) == ("none", [])
    assert second["address"] == ["fd00::7"]


HOST = ip_address("127.0.0.1")
BUSY = Flows(
    taken=7, active=2, failures={"refused": 1, "timeout": 0}, retries=1, to_backend=10, to_client=20, idle_closed=3,
    bounds=(0.001, 0.1), connects=(5, 1, 1), connect_seconds=1.5,
)  # fmt: skip


def test_vips_tell_which_drains_a_backend_has(resources, shop: SimpleNamespace) -> None:
    """A weight of zero has other reasons, too."""
    shop.drained.publish({str(shop.named.key): {Endpoint(HOST, 8002): ("drain/host/a", "drain/service/shop/web")}})
    first, _ = body(resources, "/v1/vips", detail="")
    assert [one["drains"] for one in first["backend"]] == [[], ["host/a", "service/shop/web"]]


def carry(shop: SimpleNamespace, problem: str | None = None) -> None:
    """Let the plane serve the named VIP: one backend is busy and rests, the other had no flow yet."""
    backends = (
        BackendTraffic(Endpoint(HOST, 8001), 1, BUSY, Use.RESTING, 12.5, "five failures", 0.0025),
        BackendTraffic(Endpoint(HOST, 8002), 0, Flows(), Use.DRAINING),
    )
    listeners = [ListenerTraffic(Protocol.TCP, Endpoint(ip_address("127.11.3.4"), 8000), None, backends)]
    if problem is not None:
        listeners.append(ListenerTraffic(Protocol.TCP, Endpoint(ip_address("fd01:c::9"), 8000), problem))
    shop.plane.carried[str(shop.named.key)] = VipTraffic(shop.named.key, BUSY + Flows(taken=100), listeners)


def test_vips_tell_what_this_node_counted(resources, shop: SimpleNamespace) -> None:
    """Of the VIP with all that is gone, of each backend, in a shape that programs can subtract."""
    carry(shop)
    first, _second = body(resources, "/v1/vips", detail="")
    assert first["state"] == "served"
    assert first["listeners"] == [{"address": "127.11.3.4", "port": 8000, "problem": None}]
    busy, idle = first["backend"]
    assert (busy["use"], busy["seconds"], busy["why"]) == ("resting", 12.5, "five failures")
    assert (busy["latency_seconds"], idle["use"]) == (0.0025, "draining")
    assert busy["counts"] == {
        "connections": 7,
        "active": 2,
        "failures": {"refused": 1, "timeout": 0},
        "retries": 1,
        "bytes": {"to_backend": 10, "to_client": 20},
        "idle_closed": 3,
        "connect": {"bounds": [0.001, 0.1], "counts": [5, 1, 1], "seconds": 1.5},
    }
    assert idle["counts"] is None
    assert first["total"]["connections"] == 107


@pytest.mark.parametrize(("problem", "state"), [(None, "served"), ("Permission denied", "partly")])
def test_vips_tell_why_one_is_not_served(resources, shop: SimpleNamespace, problem: str | None, state: str) -> None:
    """Of two listeners one may be had."""
    carry(shop, problem)
    first, _ = body(resources, "/v1/vips", detail="")
    assert first["state"] == state
    assert [one["problem"] for one in first["listeners"] if one["problem"]] == [problem] * (problem is not None)
    key = str(shop.named.key)
    shop.plane.carried[key] = VipTraffic(shop.named.key, Flows(), (), ["all addresses are taken"])
    first, _ = body(resources, "/v1/vips", detail="")
    assert (first["state"], first["problems"]) == ("problem", ["all addresses are taken"])


def test_counts_change_neither_dcos_nets_shape_nor_its_etag(resources, shop: SimpleNamespace) -> None:
    """Pollers of all nodes would get everything anew with each connection."""
    before = get(resources["/v1/vips"])
    carry(shop)
    after = get(resources["/v1/vips"])
    assert (before.body, before.headers) == (after.body, after.headers)
    assert "etag" not in get(resources["/v1/vips"], {"detail": ""}).headers


@pytest.mark.parametrize(
    ("glob", "count"),
    [
        ("", 2),
        ("*", 2),
        ("web.shop", 1),
        ("WEB.*", 1),
        (NAME, 1),
        (f"{NAME}:8000", 1),
        (f"{NAME}:1", 0),
        ("web", 0),
        (f"{NAME}.", 1),
        ("web.shop:8000", 1),
        ("*.shop:8000", 1),
        ("web.shop:1", 0),
        ("127.11.3.4", 1),
        ("127.11.3.5", 0),
        ("fd00::7", 1),
        ("[[]fd00::7]:53", 1),
        ("fd00::7:53", 1),
        ("[", 0),
    ],
)
def test_vips_can_be_picked_by_name(resources, glob: str, count: int) -> None:
    """With or without port and zone, in any case; or by an address that it answers on."""
    assert len(body(resources, "/v1/vips", name=glob, detail="")) == count
    assert len(body(resources, "/v1/vips", name=glob)) == count


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_client_that_has_the_vips_gets_no_body(resources, form: str) -> None:
    """Pollers pay for changes only."""
    etag = get(resources["/v1/vips"]).headers["etag"]
    again = get(resources["/v1/vips"], if_none_match=form.format(etag))
    assert (again.status, again.body, again.headers["etag"]) == (304, None, etag)


def test_a_change_of_the_vips_changes_the_etag(resources, shop: SimpleNamespace) -> None:
    """A client that has the old ones gets the new ones."""
    etag = get(resources["/v1/vips"]).headers["etag"]
    shop.vips.publish({str(shop.named.key): shop.named})
    assert get(resources["/v1/vips"], if_none_match=etag).status == 200


def test_records_are_the_addresses_and_services_of_all_zones(resources) -> None:
    """SOA and NS are left out; an SRV is TARGET:PORT; names come sorted."""
    assert body(resources, "/v1/records") == [
        {"name": f"_web._tcp.{NAME}", "host": "gone:1", "rtype": "SRV"},
        {"name": f"_web._tcp.{NAME}", "host": f"{NAME}:8000", "rtype": "SRV"},
        {"name": "localhost", "host": "127.0.0.1", "rtype": "A"},
        {"name": NAME, "host": "127.11.3.4", "rtype": "A"},
        {"name": NAME, "host": "fd01:c::9", "rtype": "AAAA"},
    ]


@pytest.mark.parametrize(
    ("glob", "count"), [("*", 5), ("WEB.*", 2), (f"{NAME}.", 2), ("localhos?", 1), ("[", 0), ("", 5)]
)
def test_records_can_be_picked_by_name(resources, glob: str, count: int) -> None:
    """A glob, in any case, with or without the final dot; a broken one is literal."""
    assert len(body(resources, "/v1/records", name=glob)) == count


def test_hosts_are_the_ipv4_addresses_of_our_names(resources) -> None:
    """In any case and with a final dot; what is unknown is empty, not an error."""
    hosts = resources["/v1/hosts/<name>"]
    assert named(hosts, f"{NAME}.") == [{"host": NAME, "ip": "127.11.3.4"}]
    assert named(hosts, NAME.upper()) == [{"host": NAME.upper(), "ip": "127.11.3.4"}]
    assert named(hosts, "example.com") == []


def test_services_come_with_the_addresses_of_their_targets(resources) -> None:
    """A target that has no address has no `ip`; the port is a number."""
    service = f"_web._tcp.{NAME}"
    assert named(resources["/v1/services/<name>"], service) == [
        {"service": service, "host": NAME, "port": 8000, "ip": "127.11.3.4"},
        {"service": service, "host": "gone", "port": 1},
    ]


def test_tasks_tell_who_said_what(resources) -> None:
    """The whole task, its owner, its origin, and the VIP labels that nobody can use."""
    first, second = body(resources, "/v1/tasks")
    assert first == {
        "id": {"framework": "files/shop", "task": "web.1@host-a"},
        "name": "web",
        "framework": "shop",
        "agent": "127.0.0.1",
        "addresses": ["127.0.0.1"],
        "state": "running",
        "health": "healthy",
        "weight": 1,
        "runtime": "unknown",
        "ports": [{"protocol": "tcp", "port": 8001, "host_port": None, "name": "default", "vips": ["/web:8000"]}],
        "labels": {"HAPROXY_GROUP": "external"},
        "owner": "host-a",
        "provenance": {"source": "files", "reference": "/etc/dcosnet/services.d/shop.toml"},
        "problems": [],
    }
    assert [problem["label"] for problem in second["problems"]] == ["web"]
    assert "has no port" in second["problems"][0]["reason"]


def test_tasks_tell_what_their_source_could_not_use(toolbox, shop: SimpleNamespace) -> None:
    """A refused port; problems of other things are not a task's."""
    key = min(shop.snapshot.value.tasks)
    problems = (Problem(key, "ports: port 70000 is not between 1 and 65535"), Problem("agent S0", "no address"))
    source = attrs.evolve(shop.source, told=SourceStatus(True, "", problems=problems))
    first = json.loads(encode(get(Tasks(toolbox[IViews], [source])).body))[0]
    assert first["problems"] == [{"label": None, "reason": "ports: port 70000 is not between 1 and 65535"}]


def test_a_label_that_its_source_tells_of_as_well_is_told_once(toolbox, shop: SimpleNamespace) -> None:
    """Mesos tells of its labels, so that they are seen among the sources too."""
    resource = Tasks(toolbox[IViews])
    before = json.loads(encode(get(resource).body))
    (key,) = (key for key, owned in shop.snapshot.value.tasks.items() if label_problems(owned.value))
    problems = tuple(Problem(key, each["reason"]) for each in label_problems(shop.snapshot.value.tasks[key].value))
    source = attrs.evolve(shop.source, told=SourceStatus(True, "", problems=problems))
    assert json.loads(encode(get(Tasks(toolbox[IViews], [source])).body)) == before


def test_however_much_is_refused_the_reply_stays_bounded(toolbox, shop: SimpleNamespace) -> None:
    """What is left out is counted."""
    key = min(shop.snapshot.value.tasks)
    problems = tuple(Problem(key, f"{n}" + "x" * 10_000) for n in range(150))
    source = attrs.evolve(shop.source, told=SourceStatus(True, "", problems=problems))
    first = json.loads(encode(get(Tasks(toolbox[IViews], [source])).body))[0]
    assert len(encode(first)) < 10_000
    assert first["problems"][-1]["reason"] == "134 more problems are not shown"
    (told,) = json.loads(encode(get(Sources([source])).body))
    assert len(encode(told)) < 70_000
    assert told["problems"][-1]["reason"] == "50 more problems are not shown"
    (told,) = json.loads(encode(get(Sources([attrs.evolve(source, told=attrs.evolve(source.told, more=7))])).body))
    assert told["problems"][-1]["reason"] == "57 more problems are not shown"


def test_sources_tell_what_they_could_not_use(resources) -> None:
    """A broken file is seen here."""
    assert body(resources, "/v1/sources") == [
        {
            "name": "files",
            "synced": True,
            "detail": "2 files",
            "tasks": 2,
            "changed_at": 7.5,
            "problems": [{"reference": "shop.toml: service 3", "reason": "port 0 is not usable"}],
        }
    ]


def test_a_source_that_said_nothing_yet_has_no_time(toolbox, shop: SimpleNamespace) -> None:
    """Absent is null."""
    silent = attrs.evolve(shop.source, told=SourceStatus(False, "not asked yet"))
    assert json.loads(encode(get(Sources([silent])).body))[0]["changed_at"] is None


def test_status_has_each_part_with_its_facts(resources) -> None:
    """Also of parts that say nothing of themselves."""
    assert body(resources, "/v1/status") == {
        "node": "host-a",
        "version": "1.2.3",
        "uptime_seconds": 12.5,
        "ready": False,
        "parts": {
            "views": {"ready": True, "reason": None, "facts": {}},
            "dns": {"ready": False, "reason": "not listening yet", "facts": {"listen": ["127.0.0.1:8053"]}},
        },
    }


def test_readiness_names_what_is_missing(toolbox, resources) -> None:
    """503 while any part is not ready; the ready ones are listed on demand."""
    waiting = get(resources["/readyz"])
    assert (waiting.status, waiting.body) == (503, "[-] dns not ready: not listening yet\nnot ready\n")
    toolbox.ready["dns"] = None
    assert (get(resources["/readyz"]).status, get(resources["/readyz"]).body) == (200, "ready\n")
    assert get(resources["/readyz"], {"verbose": ""}).body == "[+] views ready\n[+] dns ready\nready\n"


def test_metrics_of_parts_become_prometheus_text(turns: Turns) -> None:
    """Counters keep their full name, histograms are cumulative and end at infinity."""
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)

    class Counting:
        name = "dns"

        def collect(self):
            yield Metric("dcosnet_dns_queries_total", "Queries.", "counter", [Sample(3, {"rcode": "noerror"})])
            yield Metric("dcosnet_dns_names", "Names.", "gauge", [Sample(2.5)])
            yield Metric("dcosnet_dns_wait_seconds", "Wait.", "histogram", histograms=[({"of": "a"}, histogram)])

    text = get(Metrics([Counting()], process_registry(), turns.later)).body
    assert 'dcosnet_dns_queries_total{rcode="noerror"} 3.0\n' in text
    assert "# TYPE dcosnet_dns_queries_total counter\n" in text
    assert "dcosnet_dns_names 2.5\n" in text
    told = dict(re.findall(r'^dcosnet_dns_wait_seconds(?:_bucket)?\{.*le="(.*?)".*\} (.*)$', text, re.MULTILINE))
    assert told == {"0.1": "2.0", "1.0": "3.0", "+Inf": "4.0"}
    assert 'dcosnet_dns_wait_seconds_count{of="a"} 4.0\n' in text
    assert 'dcosnet_dns_wait_seconds_sum{of="a"} 7.65\n' in text


def test_metrics_tell_the_build_the_process_and_readiness(resources) -> None:
    """What every dashboard asks first."""
    text = get(resources["/metrics"]).body
    assert 'version="1.2.3"' in text
    assert 'dcosnet_ops_part_ready{part="dns"} 0.0\n' in text
    assert 'dcosnet_ops_part_ready{part="views"} 1.0\n' in text
    assert "process_resident_memory_bytes" in text
    assert "python_gc_collections_total" in text
