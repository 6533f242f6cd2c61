"""
VIPs where the network is the test's own: a network namespace, its routes and its ports.

It needs root or user namespaces; where neither is given the tests are skipped,
also in a full run, because that is the kernel's to grant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from daemon import HOST, PATIENCE, PAUSE, Daemon
from namespace import Namespace

pytestmark = pytest.mark.system


def service(name: str, port: int, vip: str, protocol: str = "tcp") -> str:
    return (
        f'[[service]]\nname = "{name}"\ngroup = "shop"\naddress = "127.0.0.1"\n'
        f'ports = [{{ port = {port}, vip = "{vip}", protocol = "{protocol}" }}]\n'
    )


@pytest.fixture
def namespace(require_program: Callable[[str], str]) -> Iterator[Namespace]:
    made = Namespace(require_program("unshare"), require_program("nsenter"))
    try:
        if not made.there or made.run(f"{require_program('ip')} link set lo up").returncode:
            pytest.skip("this user may not make a network namespace")
        yield made
    finally:
        made.close()


class Inside(Daemon):
    """A daemon in a namespace."""

    namespace: Namespace

    @property
    def argv(self) -> list[str]:
        return [*self.namespace.prefix(), *super().argv]


@pytest.fixture
def daemon(tmp_path, namespace) -> Iterator[Inside]:
    made = Inside(tmp_path, HOST)
    made.namespace = namespace
    yield made
    if made.process is not None:
        made.kill()


def l4lb(daemon: Daemon, holds: Callable[[dict], bool]) -> dict:
    """What the part says of itself, once that holds."""
    status = daemon.until("/v1/status", lambda status: holds(status["parts"]["l4lb"]["facts"]))
    return status["parts"]["l4lb"]["facts"]


def answered(daemon: Inside, curl: str, url: str) -> str:
    """What curl gets, asked again until there is an answer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        reply = daemon.namespace.run(f"{curl} -s -S --max-time 10 {url}")
        if reply.returncode == 0 or time.monotonic() > deadline:
            return reply.stdout or reply.stderr
        time.sleep(PAUSE)


def routes(namespace: Namespace, ip: str) -> list[str]:
    """The kernel's local routes that are ours, both families."""
    lines = [namespace.run(f"{ip} {family} route show table local proto 111").stdout for family in ("-4", "-6")]
    return sorted(line.split()[1] for line in "".join(lines).splitlines())


def has_ipv6(namespace: Namespace, ip: str) -> bool:
    return "::1" in namespace.run(f"{ip} -6 address show dev lo").stdout


@pytest.fixture
def without_capability(require_program) -> list[str]:
    return [require_program("setpriv"), "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]


class Bounded(Inside):
    """A daemon in a namespace that may not change its routes."""

    before: list[str]

    @property
    def argv(self) -> list[str]:
        inside = self.namespace.prefix()
        return [*inside, *self.before, *super().argv[len(inside) :]]


@pytest.fixture
def bounded(tmp_path, namespace, without_capability) -> Iterator[Bounded]:
    made = Bounded(tmp_path, HOST)
    made.namespace, made.before = namespace, without_capability
    yield made
    if made.process is not None:
        made.kill()


def test_the_remedy_for_a_range_that_is_not_local_is_true(bounded, namespace, require_program) -> None:
    """
    Without the capability: what the error says makes it so, and a VIP of 127/8 works meanwhile.

    The very command that it names is carried out, and curl gets through, over IPv6 as well.
    """
    ip, curl = require_program("ip"), require_program("curl")
    namespace.spawn("-m", "http.server", "--bind", "127.0.0.1", "8001")
    namespace.spawn("-m", "http.server", "--bind", "::1", "8001")
    vips = ["11.1.2.3:8000", "127.11.1.1:8000", "198.51.100.7:8000"]
    text = "".join(service(f"web{number}", 8001, vip) for number, vip in enumerate(vips))
    targets = [f"http://{vip}/" for vip in vips]
    if has_ipv6(namespace, ip):
        text += service("six", 8001, "fd01:c::7:8000").replace("127.0.0.1", "::1")
        targets.append("http://[fd01:c::7]:8000/")
    (bounded.services / "web.toml").write_text(text)
    bounded.start()
    facts = l4lb(bounded, lambda part: sum("tcp/" in one["subject"] for one in part["problems"]) == len(targets) - 1)
    assert any(one["subject"].startswith("l4lb.named_vips 11.0.0.0-") for one in facts["problems"])
    assert "Directory listing" in answered(bounded, curl, targets[1])
    assert routes(namespace, ip) == []
    commands = {one["reason"].split("`")[1] for one in facts["problems"]}
    assert "ip route add local 11.0.0.0/8 dev lo" in commands
    for command in commands:
        assert namespace.run(command.replace("ip ", f"{ip} ", 1)).returncode == 0, command
    l4lb(bounded, lambda part: not part["problems"])
    for target in targets:
        assert "Directory listing" in answered(bounded, curl, target)


def test_addresses_become_local_and_outlive_a_crash(daemon, namespace, require_program) -> None:
    """Nothing is doubled by a restart, what is wanted no longer goes, and routes of others stay."""
    ip, curl = require_program("ip"), require_program("curl")
    six = has_ipv6(namespace, ip)
    assert namespace.run(f"{ip} route add local 198.51.100.99 dev lo").returncode == 0
    assert namespace.run(f"{ip} route add local 203.0.113.1 dev lo proto 111").returncode == 0  # as of a crash
    namespace.spawn("-m", "http.server", "--bind", "127.0.0.1", "8001")
    namespace.spawn("-m", "http.server", "--bind", "::1", "8001")
    explicit = service("there", 8001, "198.51.100.7:8000") + service("foreign", 8001, "198.51.100.99:8000")
    (daemon.services / "web.toml").write_text(service("web", 8001, "11.1.2.3:8000") + explicit)
    (daemon.services / "six.toml").write_text(service("six", 8001, "fd01:c::7:8000").replace("127.0.0.1", "::1"))
    daemon.start()
    ranges = ["11.0.0.0/8", *(["fd01:c::/64"] if six else [])]
    daemon.until("/v1/status", lambda status: status["ready"])
    for vip in ("11.1.2.3", "198.51.100.7", "198.51.100.99", *(["[fd01:c::7]"] if six else [])):
        assert "Directory listing" in answered(daemon, curl, f"http://{vip}:8000/")
    daemon.wait(lambda: routes(namespace, ip) == sorted([*ranges, "198.51.100.7"]))
    assert not l4lb(daemon, lambda part: True)["problems"] or not six
    daemon.kill()
    assert routes(namespace, ip) == sorted([*ranges, "198.51.100.7"])
    (daemon.services / "web.toml").write_text(service("web", 8001, "11.1.2.3:8000"))
    daemon.start()
    daemon.until("/v1/status", lambda status: status["ready"])
    daemon.wait(lambda: routes(namespace, ip) == sorted(ranges))
    assert "Directory listing" in answered(daemon, curl, "http://11.1.2.3:8000/")
    assert "198.51.100.99" in namespace.run(f"{ip} route show table local").stdout
    daemon.stop()
    assert routes(namespace, ip) == sorted(ranges)


def test_an_address_of_a_former_range_stays_local(daemon, namespace, require_program) -> None:
    """It had no route of its own while the range's of the process before was there."""
    ip, curl = require_program("ip"), require_program("curl")
    assert namespace.run(f"{ip} route add local 11.0.0.0/8 dev lo proto 111").returncode == 0
    namespace.spawn("-m", "http.server", "--bind", "127.0.0.1", "8001")
    daemon.config.write_text(HOST + 'named_vips = ["12.0.0.0-12.255.255.254"]\n')
    (daemon.services / "web.toml").write_text(service("web", 8001, "11.1.2.3:8000"))
    daemon.start()
    daemon.wait(lambda: routes(namespace, ip) == ["11.1.2.3", "12.0.0.0/8"], lambda: str(routes(namespace, ip)))
    assert "Directory listing" in answered(daemon, curl, "http://11.1.2.3:8000/")
    (daemon.services / "web.toml").unlink()
    daemon.wait(lambda: routes(namespace, ip) == ["12.0.0.0/8"], lambda: str(routes(namespace, ip)))


def test_an_address_of_a_neighbour_is_refused(daemon, namespace, require_program) -> None:
    """Neither a VIP nor a range takes an address from the network that this host is connected to."""
    ip = require_program("ip")
    for command in ("link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up"):
        assert namespace.run(f"{ip} {command}").returncode == 0
    assert namespace.run(f"{ip} address add 10.9.0.5/24 dev eth0").returncode == 0
    daemon.config.write_text(HOST + 'named_vips = ["10.0.0.0-10.255.255.254"]\n')
    (daemon.services / "web.toml").write_text(
        service("web", 8001, "10.9.0.7:8000") + service("own", 8001, "10.9.0.5:8000")
    )
    daemon.start()
    facts = l4lb(daemon, lambda part: len(part["problems"]) == 2)
    assert {one["subject"] for one in facts["problems"]} == {
        "l4lb.named_vips 10.0.0.0-10.255.255.254",
        "tcp/10.9.0.7:8000",
    }
    assert all("10.9.0.0/24" in one["reason"] or "10.0.0.0/8" in one["reason"] for one in facts["problems"])
    assert routes(namespace, ip) == []
    daemon.until("/v1/vips", lambda rows: len(rows) == 2)


CLIENT = """
import socket, time

for number in range(20):
    time.sleep(0.02)  # the VIP may not listen yet
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.settimeout(5)
            tcp.connect(("127.11.1.1", 8000))
            tcp.sendall(b"hello")
            print(tcp.recv(100))
        except ConnectionError:
            pass
        udp.bind(("127.0.0.1", 41000 + number))
        udp.settimeout(0.05)
        udp.sendto(b"hello", ("127.11.1.1", 8000))
        try:
            print(udp.recv(100))
        except TimeoutError:
            pass
"""


def test_a_dead_backend_is_not_taken_for_itself(daemon, namespace) -> None:
    """
    The kernel may pick the backend's own port for the connection to it, which then leads to itself.

    Here it has two ports to pick from, so it does so at once.
    """
    namespace.python("open('/proc/sys/net/ipv4/ip_local_port_range', 'w').write('40000 40001')")
    (daemon.services / "dead.toml").write_text(
        service("dead", 40000, "127.11.1.1:8000") + service("udp", 40001, "127.11.1.1:8000", "udp")
    )
    daemon.start()
    daemon.until("/v1/vips", lambda rows: len(rows) == 2)
    assert namespace.python(CLIENT) == "", "the client heard itself"
