"""Documents of the operator API, read into values."""

from __future__ import annotations

import copy
from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.net import Protocol
from dcosnet.model.task import Health, Port, Runtime, TaskId, TaskState
from dcosnet.sources.mesos.state import (
    Unreadable,
    literal,
    make_task,
    pid_address,
    read_agent,
    read_framework,
    read_task,
    read_update,
)
from dcosnet.views.values import encode_task

AGENT = ip_address("10.0.0.4")


def unknown(_id):
    return None


def label(key, value):
    return {"key": key, "value": value}


def discovery_port(number=80, protocol="tcp", name="http", labels=()):
    return {"number": number, "protocol": protocol, "name": name, "labels": {"labels": list(labels)}}


def mapping(container, host, protocol="tcp"):
    return {"container_port": container, "host_port": host, "protocol": protocol}


def status(timestamp=1.0, addresses=("9.0.0.5",), mappings=(), **more):
    info = {"ip_addresses": [{"ip_address": each} for each in addresses], "port_mappings": list(mappings)}
    return {"timestamp": timestamp, "container_status": {"network_infos": [info]}, **more}


def document(**more):
    """A task with one of everything."""
    return {
        "framework_id": {"value": "fw"},
        "task_id": {"value": "web.1"},
        "agent_id": {"value": "S0"},
        "name": "web",
        "state": "TASK_RUNNING",
        "container": {"type": "MESOS", "network_infos": [{"port_mappings": [mapping(8080, 31000)]}]},
        "discovery": {
            "name": "shop-web",
            "ports": {
                "ports": [discovery_port(31000, labels=[label("network-scope", "host"), label("VIP_0", "/web:80")])]
            },
        },
        "labels": {"labels": [label("HAPROXY_GROUP", "external")]},
        "statuses": [status(healthy=True)],
        "health_check": {},
        **more,
    }


def made(described, agent=AGENT):
    return make_task(described, agent, "marathon", "mesos", 1.0)


def task_of(**more):
    return made(read_task(document(**more), unknown))


def ports_of(**more):
    return {(p.protocol.value, p.port, p.host_port, p.vips) for p in task_of(**more).ports}


def discovering(*ports):
    return {"name": "x", "ports": {"ports": list(ports)}}


def test_a_task_is_read_with_all_its_fields():
    described = read_task(document(), unknown)
    task = made(described)
    assert described.flaws == described.status_flaws == ()
    assert task.id == TaskId("fw", "web.1")
    assert task.name == "shop-web"
    assert task.framework == "marathon"
    assert task.agent == AGENT
    assert task.addresses == (ip_address("9.0.0.5"),)
    assert task.ports == (Port(Protocol.TCP, 8080, 31000, "http", ("/web:80",)),)
    assert task.state is TaskState.RUNNING
    assert task.health is Health.HEALTHY
    assert task.runtime is Runtime.MESOS
    assert task.labels == {"HAPROXY_GROUP": "external"}
    assert task.provenance.reference == "agent S0"


@pytest.mark.parametrize(
    ("discovery", "name"),
    [(None, "web"), ({}, "web"), ({"ports": {}}, "web"), ({"name": "pod"}, "pod")],
)
def test_a_task_is_called_as_its_discovery_says_else_by_its_own_name(discovery, name):
    """Marathon puts the name of a pod there, so that all its containers share one (dcos-net d4d0292)."""
    assert task_of(discovery=discovery).name == name


def test_a_port_without_a_name_is_called_default():
    unnamed = {"number": 80, "protocol": "tcp"}
    assert [port.name for port in task_of(container=None, discovery=discovering(unnamed)).ports] == ["default"]


@pytest.mark.parametrize(
    ("broken", "lost"),
    [
        ({"name": 7, "discovery": {"ports": document()["discovery"]["ports"]}}, {"name"}),
        ({"state": ["TASK_RUNNING"]}, {"state"}),
        ({"container": "MESOS"}, {"runtime", "ports"}),
        ({"container": {"type": "OTHER"}}, {"runtime", "ports"}),
        ({"discovery": {"name": "shop-web", "ports": []}}, {"ports"}),
        ({"labels": 3}, {"labels"}),
        ({"statuses": {"a": 1}}, {"addresses", "health"}),
    ],
)
def test_a_field_that_cannot_be_read_costs_only_itself(broken, lost):
    """What is known of it from before stays; where nothing is known, nothing is made up."""
    whole = read_task(document(), unknown)
    described = read_task(document(**broken), lambda _: whole)
    assert described.flaws + described.status_flaws
    assert made(described) == made(whole)
    alone = attrs.asdict(task_of(**broken), recurse=False)
    expected = attrs.asdict(made(whole), recurse=False)
    assert {key for key in expected if alone[key] != expected[key]} <= lost


@pytest.mark.parametrize("key", ["framework_id", "task_id", "agent_id"])
@pytest.mark.parametrize("value", [None, {}, {"value": ""}, {"value": 7}, "text", {"value": "\ud800"}])
def test_a_task_without_an_id_is_refused(key, value):
    with pytest.raises(Unreadable, match=key):
        read_task(document(**{key: value}), unknown)


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        ({"number": 80, "name": "http"}, "it has no protocol"),
        ({"protocol": "tcp"}, "it has no number"),
        (discovery_port(protocol="tcp,udp"), "'tcp,udp' is not tcp or udp"),
        (discovery_port(70000), "70000 is not between"),
        (discovery_port("80"), "'80' is not a port number"),
        (discovery_port(True), "True is not a port number"),
        (discovery_port(labels=[label("network-scope", "moon")]), "'moon' is not host or container"),
        (discovery_port(labels=[label("network-scope", "host")] * 2), "'host, host' is not"),
        (discovery_port(name=5), "name 5 is not text"),
        ("port", "is not an object"),
    ],
)
def test_a_bad_port_costs_only_itself(port, reason):
    """dcos-net loses all ports of a task over some of these."""
    described = read_task(document(container=None, discovery=discovering(port, discovery_port(81))), unknown)
    assert [port.port for port in made(described).ports] == [81]
    assert [flaw for flaw in described.flaws if reason in flaw]


@pytest.mark.parametrize("lacking", ["container_port", "host_port", "protocol"])
def test_a_bad_mapping_costs_only_itself(lacking):
    bad = {key: value for key, value in mapping(1, 2).items() if key != lacking}
    container = {"network_infos": [{"port_mappings": [bad, mapping(8080, 31000)]}]}
    described = read_task(document(container=container, discovery=None), unknown)
    assert [(port.port, port.host_port) for port in made(described).ports] == [(8080, 31000)]
    assert f"it has no {lacking}" in described.flaws[0]


@pytest.mark.parametrize(
    ("container", "mappings", "runtime", "mapped"),
    [
        (None, (), Runtime.UNKNOWN, False),
        (None, [mapping(8080, 31000)], Runtime.UNKNOWN, True),
        ({"network_infos": [{"port_mappings": [mapping(8080, 31000)]}]}, (), Runtime.MESOS, True),
        ({"type": "MESOS"}, [mapping(8080, 31000)], Runtime.MESOS, True),
        ({"type": "DOCKER", "docker": {"port_mappings": [mapping(8080, 31000)]}}, (), Runtime.DOCKER, True),
        ({"type": "DOCKER", "network_infos": [{"port_mappings": [mapping(8080, 31000)]}]}, (), Runtime.DOCKER, False),
        ({"type": "DOCKER"}, [mapping(8080, 31000)], Runtime.DOCKER, False),
    ],
)
def test_mappings_come_from_where_the_container_type_keeps_them(container, mappings, runtime, mapped):
    """Of pods they are in the status alone."""
    task = task_of(container=container, discovery=None, statuses=[status(mappings=mappings)])
    assert task.runtime is runtime
    assert bool(task.ports) == mapped


@pytest.mark.parametrize(
    ("scope", "expected"),
    [(None, (80, None)), ("container", (80, None)), ("host", (None, 80))],
)
def test_network_scope_says_what_the_number_means(scope, expected):
    labels = [label("network-scope", scope)] if scope else []
    assert ports_of(container=None, discovery=discovering(discovery_port(labels=labels))) == {("tcp", *expected, ())}


def test_number_zero_means_no_port():
    described = read_task(document(container=None, discovery=discovering(discovery_port(0))), unknown)
    assert made(described).ports == ()
    assert described.flaws == ()


@pytest.mark.parametrize(
    ("key", "counts"), [("VIP_0", True), ("vip", True), ("VIPx", True), ("Vip_0", False), ("xVIP", False)]
)
def test_a_key_that_begins_with_vip_is_a_vip_label(key, counts):
    port = discovery_port(labels=[label(key, "/web:80")])
    assert ports_of(container=None, discovery=discovering(port)) == {("tcp", 80, None, ("/web:80",) if counts else ())}


def test_a_label_that_makes_no_vip_is_told_and_stays_with_its_port():
    """Each node reads labels for itself; who looks at the source learns why there is no VIP."""
    more = {
        "container": None,
        "resources": RANGES,
        "labels": {"labels": [label("VIP_PORT0", "tcp://b:0")]},
        "discovery": discovering(discovery_port(10, labels=[label("VIP_0", "a"), label("VIP_1", "/a:80")])),
    }
    described = read_task(document(**more), unknown)
    assert {vip for port in made(described).ports for vip in port.vips} == {"a", "/a:80", "b:0"}
    assert sorted(flaw[: len("VIP label '...'")] for flaw in described.flaws) == ["VIP label 'a' h", "VIP label 'b:0'"]


def test_tcp_and_udp_of_one_number_stay_two_ports():
    """dcos-net 5a51b2e."""
    ports = [discovery_port(53), discovery_port(53, "UDP", labels=[label("VIP_0", "/dns:53")])]
    assert ports_of(container=None, discovery=discovering(*ports)) == {
        ("tcp", 53, None, ()),
        ("udp", 53, None, ("/dns:53",)),
    }


RANGES = [
    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 9.0}},
    {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 10, "end": 11}, {"begin": 20, "end": 20}]}},
    {"name": "ports", "type": "SCALAR", "scalar": {"value": 30.0}},
]


@pytest.mark.parametrize(
    ("key", "value", "port"),
    [
        ("VIP_PORT0", "tcp://web:80", ("tcp", None, 10, ("web:80",))),
        ("vip_port2", "udp:///web:80", ("udp", None, 20, ("/web:80",))),
        ("Vip_Port3", "tcp://web:80", ("tcp", None, 30, ("web:80",))),
        ("VIP_PORTx", "tcp://web:80", None),
        ("VIP_PORT-1", "tcp://web:80", None),
    ],
)
def test_a_task_label_makes_a_host_port_of_an_offered_port(key, value, port):
    found = ports_of(container=None, discovery=None, resources=RANGES, labels={"labels": [label(key, value)]})
    assert found == ({port} if port else set())


@pytest.mark.parametrize(
    ("key", "value", "resources", "reason"),
    [
        ("VIP_PORT4", "tcp://web:80", RANGES, "has 4 ports"),
        ("VIP_PORT0", "TCP://web:80", RANGES, "does not begin with"),
        ("VIP_PORT0", "tcp://web:80", [{"name": "ports", "ranges": {"range": [{"begin": 1}]}}], "no resource"),
    ],
)
def test_a_label_of_a_port_that_is_not_there_costs_only_itself(key, value, resources, reason):
    """dcos-net loses all ports of the task."""
    described = read_task(document(resources=resources, labels={"labels": [label(key, value)]}), unknown)
    assert [port.port for port in made(described).ports] == [8080]
    assert reason in described.flaws[0]


def test_nothing_is_mapped_on_the_hosts_network():
    """Host ports become plain ones there, and one port stays one."""
    more = {
        "container": None,
        "resources": RANGES,
        "labels": {"labels": [label("VIP_PORT0", "tcp://b:80")]},
        "discovery": discovering(discovery_port(10, labels=[label("VIP_0", "a:80")])),
    }
    on_host = {"statuses": [status(addresses=[str(AGENT)])]}
    assert ports_of(**more, **on_host) == {("tcp", 10, None, ("a:80", "b:80"))}
    assert ports_of(**more, **on_host, state="TASK_STARTING") == {
        ("tcp", None, 10, ("b:80",)),
        ("tcp", 10, None, ("a:80",)),
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("TASK_RUNNING", TaskState.RUNNING),
        ("TASK_KILLING", TaskState.KILLING),
        ("TASK_FINISHED", TaskState.TERMINAL),
        ("TASK_FAILED", TaskState.TERMINAL),
        ("TASK_KILLED", TaskState.TERMINAL),
        ("TASK_LOST", TaskState.TERMINAL),
        ("TASK_ERROR", TaskState.TERMINAL),
        ("TASK_DROPPED", TaskState.TERMINAL),
        ("TASK_GONE", TaskState.TERMINAL),
        ("TASK_GONE_BY_OPERATOR", TaskState.TERMINAL),
        ("TASK_UNREACHABLE", TaskState.PREPARING),
        ("TASK_STAGING", TaskState.PREPARING),
        ("TASK_STARTING", TaskState.PREPARING),
        ("TASK_UNKNOWN", TaskState.PREPARING),
        ("TASK_FROM_THE_FUTURE", TaskState.PREPARING),
    ],
)
def test_states_are_four(state, expected):
    assert task_of(state=state).state is expected


@pytest.mark.parametrize(
    ("checked", "words", "expected"),
    [
        (False, [], Health.UNKNOWN),
        (True, [], Health.UNHEALTHY),
        (True, [True], Health.HEALTHY),
        (False, [True, False], Health.UNHEALTHY),
        (True, [True, None], Health.HEALTHY),
    ],
)
def test_health_is_the_last_word_of_a_check(checked, words, expected):
    """A task with a check gets nothing before its first success."""
    statuses = [status(float(n)) | ({} if word is None else {"healthy": word}) for n, word in enumerate(words)]
    described = read_task(document(statuses=statuses[::-1], health_check={} if checked else None), unknown)
    assert made(described).health is expected


def test_a_status_that_leaves_something_out_leaves_it_as_it_was():
    """A health update without network data hides no address."""
    whole = read_task(document(), unknown)
    told = {"framework_id": {"value": "fw"}, "status": {"task_id": {"value": "web.1"}, "healthy": False}}
    after = made(read_update(told, whole))
    assert after == attrs.evolve(made(whole), health=Health.UNHEALTHY)


def test_the_mappings_of_a_pod_outlive_a_status_without_them():
    """Only the first status of its network tells them."""
    whole = read_task(document(container={}, statuses=[status(mappings=[mapping(8080, 31000)])]), unknown)
    assert made(read_update({"status": status(2.0)}, whole)) == made(whole)
    assert [(port.port, port.host_port) for port in made(whole).ports] == [(8080, 31000)]


def test_the_state_beside_the_status_overrides_it():
    """DCOS_OSS-3539."""
    update = {"status": {"state": "TASK_RUNNING"}, "state": "TASK_KILLED"}
    assert read_update(update, read_task(document(), unknown)).state is TaskState.TERMINAL
    del update["state"]
    assert read_update(update, read_task(document(), unknown)).state is TaskState.RUNNING


def test_a_flaw_of_a_status_goes_with_the_next_status():
    whole = read_task(document(statuses=[status(addresses=["9.0.0", "9.0.0.5"])]), unknown)
    assert whole.addresses == (ip_address("9.0.0.5"),)
    assert "'9.0.0' is not" in whole.status_flaws[0]
    assert read_update({"status": status()}, whole).status_flaws == ()


def test_the_flaws_of_one_task_are_bounded():
    ports = [{"number": number} for number in range(1, 100)]
    described = read_task(document(discovery=discovering(*ports)), unknown)
    assert len(described.flaws) == 17
    assert described.flaws[-1] == "and 83 more"


@pytest.mark.parametrize(
    ("hostname", "address"),
    [("10.0.0.9", "10.0.0.9"), ("fd00::9", "fd00::9"), ("localhost", "127.0.0.1"), ("agent.example", None), (7, None)],
)
def test_an_agents_address_is_its_host_name_where_this_is_one(hostname, address):
    agent = read_agent({"agent_info": {"id": {"value": "S0"}, "hostname": hostname}, "pid": "slave(1)@10.0.0.9:5051"})
    assert agent.address == (None if address is None else ip_address(address))
    assert literal("10.9") is None


@pytest.mark.parametrize(
    ("pid", "address"),
    [
        ("slave(1)@10.0.0.9:5051", "10.0.0.9"),
        ("slave(1)@[fd00::9]:5051", "fd00::9"),
        ("", None),
        ("slave(1)", None),
        ("slave(1)@agent.example:5051", None),
        ("slave(1)@10.0.0.9:99999", None),
    ],
)
def test_a_pid_may_hold_an_address(pid, address):
    assert pid_address(pid) == (None if address is None else ip_address(address))


def test_a_framework_is_read():
    framework = read_framework({"framework_info": {"id": {"value": "fw"}, "name": "marathon"}, "active": False})
    assert (framework.id, framework.name, framework.active) == ("fw", "marathon", False)
    with pytest.raises(Unreadable, match="name"):
        read_framework({"framework_info": {"id": {"value": "fw"}}})


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | st.just("tcp://x"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


WHOLE = document(resources=RANGES, labels={"labels": [label("VIP_PORT0", "tcp://b:80")]})


@given(st.lists(st.tuples(st.sampled_from(list(places(WHOLE))), junk), min_size=1, max_size=3))
def test_reading_is_total(changes):
    """Whatever stands where: the task is refused, or it is one that can be stored."""
    task = copy.deepcopy(WHOLE)
    for path, value in changes:
        holder = task
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            task = value  # the whole of it, or a place that an earlier change removed
    try:
        described = read_task(task, unknown)
    except Unreadable:
        return
    encode_task(made(described), {})
    assert all(isinstance(flaw, str) for flaw in described.flaws)
