"""
VIPs where the network is the test's own: a network namespace, its routes and its ports.

It needs root or user namespaces; where neither is given the tests are skipped,
also in a full run, because that is the kernel's to grant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from daemon import PATIENCE, PAUSE, Daemon
from namespace import Namespace

pytestmark = pytest.mark.system

CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[files]
path = "services.d"
[l4lb]
plane = "userspace"
[ops]
listen = ["unix:api.sock:mode=600"]
"""


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
    made = Inside(tmp_path, CONFIG)
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


def test_the_remedy_for_a_range_that_is_not_local_is_true(daemon, namespace, require_program) -> None:
    """What the error says of 11/8 makes it so: the very command that it names is carried out, and curl gets through."""
    curl = require_program("curl")
    namespace.spawn("-m", "http.server", "--bind", "127.0.0.1", "8001")
    (daemon.services / "web.toml").write_text(service("web", 8001, "11.1.2.3:8000"))
    daemon.start()
    (problem,) = l4lb(daemon, lambda part: bool(part["problems"]))["problems"]
    assert problem["subject"] == "tcp/11.1.2.3:8000"
    _, command, _ = problem["reason"].split("`")
    assert command == "ip route add local 11.0.0.0/8 dev lo"
    assert namespace.run(command.replace("ip ", f"{require_program('ip')} ", 1)).returncode == 0
    l4lb(daemon, lambda part: not part["problems"])
    assert "Directory listing" in answered(daemon, curl, "http://11.1.2.3:8000/")


def test_an_ipv6_address_that_the_host_was_given_is_served(daemon, namespace, require_program) -> None:
    """A local route is not enough for IPv6, so the remedy is another one."""
    ip, curl = require_program("ip"), require_program("curl")
    if namespace.run(f"{ip} -6 route add local fd01:c::/64 dev lo").returncode:
        pytest.skip("this kernel has no IPv6")
    namespace.spawn("-m", "http.server", "--bind", "::1", "8001")
    (daemon.services / "web.toml").write_text(service("web", 8001, "fd01:c::7:8000").replace("127.0.0.1", "::1"))
    daemon.start()
    (problem,) = l4lb(daemon, lambda part: bool(part["problems"]))["problems"]
    assert "give it one" in problem["reason"]
    assert namespace.run(f"{ip} address add fd01:c::7/128 dev lo").returncode == 0
    l4lb(daemon, lambda part: not part["problems"])
    assert "Directory listing" in answered(daemon, curl, "http://[fd01:c::7]:8000/")


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
