"""Reading services: what is right becomes a task, what is wrong is said at once and with a remedy."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.task import Health, Port, TaskId
from dcosnet.sources.files.services import Content, is_service_file, parse
from dcosnet.sources.services import Check, Reader

READER = Reader("files", "host-a", ip_address("10.0.0.1"), checks=True)

CONTRACT = b"""
[[service]]
name = "web"
group = "shop"
address = "127.0.0.1"
ports = [{ port = 8001, protocol = "tcp", vip = "/web:8000" }]
check = { http = "/health", interval = "5s", timeout = "1s" }
labels = { HAPROXY_GROUP = "external", HAPROXY_0_VHOST = "web.example" }
"""


def told(text: str) -> list[str]:
    content = parse("a.toml", text.encode(), READER)
    assert content.services == ()
    return [str(flaw) for flaw in content.flaws]


def test_the_documented_file_means_the_documented_task() -> None:
    """The shape that users read in the documentation."""
    (service,) = parse("web.toml", CONTRACT, READER).services
    assert service.check == Check("http", Endpoint(ip_address("127.0.0.1"), 8001), "/health", 5.0, 1.0)
    task = service.task("files", "host-a", "web.toml", Health.UNHEALTHY)
    assert task.id == TaskId("files/shop", "web@host-a")
    assert (task.name, task.framework, str(task.agent), task.weight) == ("web", "shop", "127.0.0.1", 1)
    assert task.ports == (Port(Protocol.TCP, 8001, None, "default", ("/web:8000",)),)
    assert task.labels["HAPROXY_GROUP"] == "external"
    assert (task.health, task.provenance.reference) == (Health.UNHEALTHY, "web.toml")


def test_json_says_the_same_as_toml() -> None:
    """Both syntaxes make one table."""
    body = {"name": "web", "group": "shop", "ports": [{"port": 1, "vip": ["/a:1", "/b:2"]}], "instance": "2"}
    (service,) = parse("a.json", json.dumps({"service": [body]}).encode(), READER).services
    assert service.ports[0].vips == ("/a:1", "/b:2")
    assert service.address == READER.address
    assert service.id("files", "host-a").task == "web.2@host-a"


BASE = '[[service]]\nname = "web"\ngroup = "shop"\n'


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("prots = []", "service 1 (web): unknown key 'prots'; did you mean `ports`?"),
        ("ports = [{ port = 0 }]", "port 1: port 0 does not exist; use 1 to 65535"),
        ("ports = [{ port = 65536 }]", "port 65536 does not exist"),
        ("ports = [{ port = true }]", "True is not a port number"),
        ('ports = [{ port = "80" }]', "'80' is not a port number; write a whole number without quotes"),
        ("ports = [{ }]", "`port` is missing"),
        ("ports = 80", "80 is not a list"),
        ('ports = [{ port = 1, protocol = "sctp" }]', "protocol 'sctp' is unknown"),
        ("ports = [{ port = 1, protocol = [] }]", "protocol [] is unknown"),
        ("ports = [{ port = 1 }, { port = 1 }]", "1/tcp is there twice"),
        ('ports = [{ port = 1, vip = "web" }]', "has no port"),
        ('ports = [{ port = 1, vip = "/...:80" }]', "the name has no letter or digit"),
        ('ports = [{ port = 1, vip = "/web:65536" }]', "port 65536 is not between 1 and 65535"),
        ('ports = [{ port = 80, vip = "10.0.0.1:80" }]', "VIP '10.0.0.1:80' points at itself"),
        ('ports = [{ port = 80, vip = "0.0.0.0:80" }]', "VIP label '0.0.0.0:80': nothing can connect to 0.0.0.0"),
        ('ports = [{ port = 80, vip = "/' + "a." * 120 + ':80" }]', "makes a name too long for DNS"),
        ('address = "10.1"', "'10.1' is not an IPv4 or IPv6 address"),
        ('address = "0.0.0.0"', "nothing can connect to 0.0.0.0"),
        ("weight = -1", "weight: -1 is not a whole number from 0"),
        ("weight = true", "weight: True is not a whole number"),
        ("labels = { A = 1 }", "labels: 'A' = 1 is not text"),
        ("check = {}", "neither or both of http and tcp"),
        ("check = { tcp = true }", "there is no TCP port to check"),
        ('check = { http = "health", port = 1 }', "http 'health' is not a path"),
        ('check = { http = "/ HTTP/1.1", port = 1 }', "is not a path"),
        ('check = { tcp = true, port = 1, interval = "5" }', "interval '5' is not a duration"),
        ('check = { tcp = true, port = 1, interval = "0s" }', "is not between 0.1s and 1h"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_remedy(line: str, fragment: str) -> None:
    """One line for each mistake, and nothing else is complained of."""
    (flaw,) = told(BASE + line)
    assert flaw.startswith("service 1 (web): ")
    assert fragment in flaw
    assert "; " in flaw
    assert "\n" not in flaw


@pytest.mark.parametrize("name", ["...", "-_-", "ß", "a" * 64, "a\\u0007b", ""])
def test_a_name_that_makes_no_label_is_refused(name: str) -> None:
    """It would be a task without a name in DNS."""
    assert any("name" in flaw for flaw in told(f'[[service]]\nname = "{name}"\ngroup = "shop"'))
    assert any("group" in flaw for flaw in told(f'[[service]]\nname = "a"\ngroup = "{name}"'))


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    """Nobody corrects a file one mistake at a time; and half a file is not taken."""
    flaws = told(BASE + 'weight = -1\nprots = 1\n[[service]]\nname = "db"\n[[service]]\nname = "ok"\ngroup = "g"')
    assert [flaw.partition(":")[0] for flaw in flaws] == ["service 1 (web)", "service 1 (web)", "service 2 (db)"]


def test_a_key_twice_in_json_is_a_mistake() -> None:
    """The first of two names would vanish without a word."""
    (flaw,) = parse("a.json", b'{"service": [{"name": "a", "name": "b"}]}', READER).flaws
    assert "'name' is there twice" in str(flaw)


def test_backups_and_hidden_files_are_not_read() -> None:
    """Editors leave them in the folder."""
    names = ["a.toml", "b.json", ".a.toml", "a.toml~", "#a.toml#", ".#a.toml", "..data", "a.toml.swp", "a.txt"]
    assert [name for name in names if is_service_file(name)] == ["a.toml", "b.json"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["name", "group", "instance", "address", "ports", "labels", "weight", "check"]
PORTS = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(["port", "protocol", "vip", "name"], VALUES)))
TABLES = st.fixed_dictionaries({}, optional={key: VALUES | PORTS if key == "ports" else VALUES for key in KEYS})


@given(table=TABLES | VALUES)
def test_reading_a_table_never_raises(table: object) -> None:
    """Either a service or the reasons why there is none, whatever a program sends."""
    service, flaws = READER.read(table, "here")
    assert (service is None) == bool(flaws)
    assert all("\n" not in str(flaw) for flaw in flaws)


@given(
    data=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    name=st.sampled_from(["a.toml", "a.json"]),
)
def test_parsing_never_raises(data: bytes, name: str) -> None:
    """A file may hold anything."""
    content = parse(name, data, READER)
    assert isinstance(content, Content)
    assert not (content.services and content.flaws)


@pytest.mark.parametrize(
    ("name", "data"), [("a.json", b"[" * 100_000), ("a.toml", b"a = " + b"[" * 100_000), ("a.json", b"9" * 5000)]
)
def test_hostile_text_is_a_flaw(name: str, data: bytes) -> None:
    """Depth and length exhaust parsers before they see a mistake."""
    assert parse(name, data, READER).flaws


@given(
    vips=st.lists(st.sampled_from(["/web:80", "a.b:1", "10.9.9.9:5"]), max_size=3, unique=True),
    weight=st.integers(0, 9),
)
def test_a_service_reads_back_from_its_table(vips: list[str], weight: int) -> None:
    """What is saved is what was meant."""
    table = {"name": "web", "group": "shop", "ports": [{"port": 7, "vip": vips}], "weight": weight}
    service, _ = READER.read(table, "")
    assert service is not None
    assert READER.read(service.table(), "") == (service, [])
