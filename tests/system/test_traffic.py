"""
Traffic through VIPs while the backends come, go, hang and die: real clients at a constant load.

What hey, curl, iperf3 and dig are told is what users would be told. A request
fails only where its connection was established with a backend that then died.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from daemon import HOST, Daemon, free_port, vip_net
from servers import HERE, Web, write_knot

pytestmark = pytest.mark.system

WORKERS = 8
"""Requests that a load has in flight at the most."""
CROWD = 5000
"""Connections that are cut at a time; each takes two descriptors of the daemon."""


@attrs.define
class Load:
    """What a load generator was told: answers by status, and errors by text."""

    answers: dict[str, int] = attrs.field(factory=dict)
    errors: dict[str, int] = attrs.field(factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values()) + sum(count for status, count in self.answers.items() if status != "200")

    @classmethod
    def read(cls, text: str) -> Load:
        answers, _, errors = text.partition("Error distribution:")
        return cls(
            {status: int(count) for status, count in re.findall(r"\[(\d+)\]\t(\d+) responses", answers)},
            {what.strip(): int(count) for count, what in re.findall(r"\[(\d+)\]\t(.*)", errors)},
        )


class Site:
    """A VIP with web servers behind it, put there by a services file."""

    def __init__(self, daemon: Daemon, start: Callable[[str], Web], check: str = "") -> None:
        self.daemon = daemon
        self.vip = f"{vip_net()}.77"
        self.port = free_port()
        self.behind: dict[str, tuple[Web, int]] = {}
        """By name, with the weight."""
        self._start = start
        self._check = check

    def start(self, name: str) -> Web:
        """One more, that serves when this returns."""
        web = self._start(name)
        self.place(web)
        return web

    def place(self, web: Web, weight: int = 1) -> None:
        """Put it there with this weight."""
        self.behind[web.name] = (web, weight)
        self.write()

    def remove(self, web: Web) -> None:
        del self.behind[web.name]
        self.write()

    def write(self) -> None:
        """Tell the daemon, and wait until it is as told."""
        text = "".join(
            f'[[service]]\nname = "web"\ninstance = "{name}"\ngroup = "shop"\naddress = "{HERE}"\nweight = {weight}\n'
            f'ports = [{{ port = {web.port}, vip = "{self.vip}:{self.port}" }}]\n{self._check}\n'
            for name, (web, weight) in self.behind.items()
        )
        self.daemon.write("web.toml", text)
        wanted = {web.port: weight for web, weight in self.behind.values()}
        self.until(lambda backends: {one["port"]: one["weight"] for one in backends} == wanted)

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until the backends hold."""
        self.daemon.until("/v1/vips?detail", lambda vips: holds(vips[0]["backend"] if vips else []))

    @property
    def url(self) -> str:
        return f"http://{self.vip}:{self.port}/"


@pytest.fixture
def site(make_daemon: Callable[[str], Daemon], nginx: Callable[[str], Web]) -> Site:
    daemon = make_daemon(HOST)
    daemon.start()
    daemon.ready()
    return Site(daemon, nginx)


@pytest.fixture
def load(require_program: Callable[[str], str]) -> Callable[..., Any]:
    """Let hey ask 200 times a second while something is done, and give what it was told."""
    program = require_program("hey")

    @contextmanager
    def run(url: str, *options: str) -> Iterator[Load]:
        told = Load()
        argv = [program, "-c", str(WORKERS), "-q", "25", "-z", "10m", "-t", "5", *options, url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield told
            finally:
                process.send_signal(signal.SIGINT)
                text = process.communicate(timeout=30)[0]
        read = Load.read(text)
        told.answers, told.errors = read.answers, read.errors
        assert told.answers.get("200", 0) > 0, text

    return run


@pytest.fixture
def asked(require_program: Callable[[str], str]) -> Callable[[str], str]:
    """What curl gets, on a connection of its own."""
    program = require_program("curl")

    def get(url: str) -> str:
        argv = [program, "-s", "-S", "--max-time", "10", url]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    return get


@pytest.mark.parametrize("options", [("-disable-keepalive",), ()], ids=["new connections", "kept connections"])
def test_a_rolling_deploy_fails_nothing(site: Site, load: Any, asked: Callable[[str], str], options: Any) -> None:
    """Each server is replaced: the new one comes, the old one drains, goes from the table, and ends as told."""
    old = [site.start(f"old{number}") for number in range(3)]
    with load(site.url, *options) as told:
        for number, one in enumerate(old):
            site.start(f"new{number}")
            site.place(one, 0)
            site.remove(one)
            one.process.send_signal(signal.SIGQUIT)  # nginx: end when all that is asked is answered
            assert one.process.wait(20) == 0
        seen = {asked(site.url) for _ in range(24)}
    assert told.failed == 0, told
    assert seen <= {"new0", "new1", "new2"}


def test_a_killed_backend_costs_its_own_requests_only(site: Site, load: Any) -> None:
    """Nobody tells the daemon: the next connection that it refuses goes to another."""
    victim, other = site.start("victim"), site.start("other")
    with load(site.url, "-disable-keepalive") as told:
        _until_served(site, victim, other)
        victim.process.kill()
        victim.process.wait(20)
        _until_more(site, other)
    assert told.failed <= WORKERS, told
    with load(site.url, "-disable-keepalive") as told:
        _until_more(site, other)
    assert told.failed == 0, told


def test_a_killed_backend_is_back_when_it_is_back(site: Site, load: Any, asked: Callable[[str], str]) -> None:
    site.start("stays")
    victim = site.start("victim")
    victim.process.kill()
    victim.process.wait(20)
    assert {asked(site.url) for _ in range(12)} == {"stays"}
    site.remove(victim)
    site.start("again")
    site.daemon.wait(lambda: asked(site.url) == "again")


def test_a_slow_backend_fails_nothing_and_gets_less(site: Site, load: Any, tmp_path: Path) -> None:
    quick = site.start("quick")
    slow = _slow(tmp_path)
    try:
        site.place(slow)
        with load(site.url, "-disable-keepalive") as told:
            _until_more(site, quick, 200)
        assert told.failed == 0, told
        counts = {one["port"]: _taken(one) for one in _backends(site)}
        assert 0 < counts[slow.port] < counts[quick.port] / 2, counts
    finally:
        slow.process.kill()
        slow.process.wait(20)


def test_a_backend_that_hangs_is_left_by_its_check(make_daemon: Any, nginx: Any, load: Any) -> None:
    """It accepts, as its kernel does that for it, and never answers: that is for a check to find out."""
    daemon = make_daemon(HOST)
    daemon.start()
    daemon.ready()
    site = Site(daemon, nginx, 'check = { http = "/", interval = "200ms", timeout = "500ms" }')
    hangs, other = site.start("hangs"), site.start("other")
    site.until(lambda backends: [one["weight"] for one in backends] == [1, 1])
    with load(site.url, "-disable-keepalive") as told:
        _until_served(site, hangs, other)
        hangs.process.send_signal(signal.SIGSTOP)
        try:
            _weights(site, {hangs: 0, other: 1})
            _until_more(site, other)
        finally:
            hangs.process.send_signal(signal.SIGCONT)
    # What waited was answered once it went on, or its client gave up: one for each worker at the most.
    assert told.failed <= WORKERS, told


def test_every_backend_dead_is_refused_at_once(site: Site, asked: Callable[[str], str]) -> None:
    only = site.start("only")
    assert asked(site.url) == "only"
    only.process.kill()
    only.process.wait(20)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        asked(site.url)
    assert caught.value.returncode in (7, 52, 56), "reset, at the latest when it had asked"


def test_a_drain_ends_new_flows_and_no_old_one(site: Site, load: Any, asked: Callable[[str], str]) -> None:
    """`dcosnet drain --wait` returns when the last connection has ended, and not before."""
    leaves, stays = site.start("leaves"), site.start("stays")
    kept = _kept(site, "leaves")
    argv = [str(Path(sys.executable).with_name("dcosnet")), "--api", f"unix:{site.daemon.socket}", "drain"]
    what = f"{HERE}:{leaves.port}"
    with load(site.url, "-disable-keepalive") as told:
        _until_served(site, leaves, stays)
        with subprocess.Popen([*argv, what, "--note", "for repair", "--wait"]) as drain:
            _weights(site, {leaves: 0, stays: 1})
            assert {asked(site.url) for _ in range(8)} == {"stays"}
            assert drain.poll() is None, "a connection is left"
            assert _ask(kept) == "leaves", "and it goes on"
            kept.close()
            assert drain.wait(30) == 0
        subprocess.run([*argv, "--end", what], check=True, timeout=30)
        site.daemon.wait(lambda: asked(site.url) == "leaves")
    assert told.failed == 0, told


def test_a_label_with_the_address_of_a_backend_costs_only_itself(site: Site, asked: Callable[[str], str]) -> None:
    """It cannot listen where the backend does; so nothing goes round, and the backend is used."""
    only = site.start("only")
    (site.daemon.services / "other.toml").write_text(
        f'[[service]]\nname = "other"\ngroup = "shop"\naddress = "{HERE}"\n'
        f'ports = [{{ port = {free_port()}, vip = "{HERE}:{only.port}" }}]\n'
    )
    site.daemon.until(
        "/v1/status",
        lambda status: any(str(only.port) in one["subject"] for one in status["parts"]["l4lb"]["facts"]["problems"]),
    )
    site.daemon.until(
        "/v1/vips?detail", lambda vips: {one["state"] for one in vips} == {"served", "problem"} and len(vips) == 2
    )
    assert {asked(site.url) for _ in range(4)} == {"only"}


def test_iperf3_passes_both_ways_and_by_udp(site: Site, spawn: Any, require_program: Callable[[str], str]) -> None:
    program = require_program("iperf3")
    port = free_port()
    spawn(program, "-s", "-B", HERE, "-p", str(port))
    site.daemon.wait(lambda: _listens(port))
    both = "".join(
        f'[[service]]\nname = "iperf-{protocol}"\ngroup = "shop"\naddress = "{HERE}"\n'
        f'ports = [{{ port = {port}, protocol = "{protocol}", vip = "{site.vip}:5201" }}]\n'
        for protocol in ("tcp", "udp")
    )
    (site.daemon.services / "iperf.toml").write_text(both)
    site.daemon.until("/v1/vips", lambda vips: len(vips) == 2)
    site.daemon.wait(lambda: _listens(5201, site.vip))
    for options in ((), ("-R",), ("-u", "-b", "50M"), ("-u", "-b", "50M", "-R")):
        argv = [program, "-c", site.vip, "-p", "5201", "-n", "20M", *options]
        told = _measured(argv)
        assert re.search(r"\d .*receiver", told), told


def test_dig_asks_a_name_server_behind_a_vip(
    site: Site, spawn: Any, require_program: Callable[[str], str], tmp_path: Path
) -> None:
    dig, port = require_program("dig"), free_port()
    spawn(require_program("knotd"), "-c", write_knot(tmp_path, port, "www 60 A 192.0.2.80\n"))
    (site.daemon.services / "dns.toml").write_text(
        "".join(
            f'[[service]]\nname = "dns-{protocol}"\ngroup = "shop"\naddress = "{HERE}"\n'
            f'ports = [{{ port = {port}, protocol = "{protocol}", vip = "{site.vip}:53053" }}]\n'
            for protocol in ("tcp", "udp")
        )
    )
    site.daemon.until("/v1/vips", lambda vips: len(vips) == 2)

    def answer(*options: str) -> str:
        argv = [dig, f"@{site.vip}", "-p", "53053", "+tries=1", "+time=2", "+short", *options, "www.example"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout

    site.daemon.wait(lambda: answer() == "192.0.2.80\n")
    site.daemon.wait(lambda: answer("+tcp") == "192.0.2.80\n")


CLIENTS = """
import selectors, socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
selector = selectors.DefaultSelector()
kept = []
for _ in range(count):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # or all of them would hold gigabytes
    sock.connect((address, port))
    kept.append(sock)
    sock.setblocking(False)
    selector.register(sock, selectors.EVENT_READ)
reading = set()
while len(reading) < count:
    for key, _ in selector.select():
        if key.fileobj.recv(65536):
            reading.add(key.fd)
            selector.unregister(key.fileobj)
print("all", flush=True)
sys.stdin.read()
"""
SOURCE = """
import selectors, socket, sys
listener = socket.create_server((sys.argv[1], 0), backlog=4096)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
listener.setblocking(False)
print(listener.getsockname()[1], flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
data = bytes(65536)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            try:
                while True:
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    selector.register(sock, selectors.EVENT_WRITE)
            except BlockingIOError:
                continue
        else:
            try:
                key.fileobj.send(data)
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(key.fileobj)
                key.fileobj.close()
"""


@pytest.mark.parametrize("dies", ["clients", "both"])
def test_a_crowd_that_is_cut_leaks_nothing(site: Site, dies: str) -> None:
    """Thousands of connections in the midst of a transfer; then one side is killed, or both."""
    daemon = site.daemon
    with _program(SOURCE, HERE) as source:
        assert source.stdout is not None
        port = int(source.stdout.readline())
        (daemon.services / "crowd.toml").write_text(
            f'[[service]]\nname = "crowd"\ngroup = "shop"\naddress = "{HERE}"\n'
            f'ports = [{{ port = {port}, vip = "{site.vip}:{site.port}" }}]\n'
        )
        daemon.until("/v1/vips", bool)
        daemon.wait(lambda: _listens(site.port, site.vip))
        assert daemon.process is not None
        before = _sockets(daemon)
        with _program(CLIENTS, site.vip, str(site.port), "50") as few:
            assert few.stdout is not None
            assert few.stdout.readline() == b"all\n"
            few.kill()
        # The first look may have seen a connection of ours that was about to go.
        daemon.wait(lambda: _sockets(daemon) <= before)
        before = _sockets(daemon)
        memory = []
        for _ in range(3):
            with _program(CLIENTS, site.vip, str(site.port), str(CROWD)) as clients:
                assert clients.stdout is not None
                assert clients.stdout.readline() == b"all\n"
                assert _sockets(daemon) >= before + 2 * CROWD
                if dies == "both" and len(memory) == 2:
                    source.kill()
                clients.kill()
                daemon.wait(lambda: _sockets(daemon) <= before)
            memory.append(_resident(daemon))
    # Allocators keep some of what the first crowds had; a leak would take as much again with each.
    assert memory[2] - memory[1] < 16 << 20, memory


# --- small tools ---


@contextmanager
def _program(text: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", text, *arguments]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _sockets(daemon: Daemon) -> int:
    """How many sockets it has; pipes are pooled, and bounded."""
    assert daemon.process is not None
    found = 0
    for one in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed between the list and the look
            found += one.readlink().name.startswith("socket:")
    return found


def _resident(daemon: Daemon) -> int:
    """Octets of memory."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) << 10


def _listens(port: int, address: str = HERE) -> bool:
    """Whether somebody listens there; iperf3 would take a connection for a client."""
    wanted = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1] == wanted and row[3] == "0A" for row in rows)


def _backends(site: Site) -> list[dict[str, Any]]:
    status, vips = site.daemon.get("/v1/vips?detail")
    assert status == 200
    found: list[dict[str, Any]] = vips[0]["backend"]
    return found


def _measured(argv: list[str]) -> str:
    """What iperf3 says; its server takes one client at a time, and a moment to be done with the last."""
    for _ in range(100):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        if "the server is busy" not in done.stderr:
            break
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def _taken(backend: dict[str, Any]) -> int:
    """Connections that it has taken."""
    return 0 if backend["counts"] is None else int(backend["counts"]["connections"])


def _weights(site: Site, wanted: dict[Web, int]) -> None:
    by_port = {web.port: weight for web, weight in wanted.items()}
    site.until(lambda backends: {one["port"]: one["weight"] for one in backends} == by_port)


def _until_served(site: Site, *webs: Web) -> None:
    """Wait until each of them has taken connections."""
    for web in webs:
        _until_more(site, web)


def _until_more(site: Site, web: Web, count: int = 20) -> None:
    """Wait until it has taken so many connections more than now."""

    def taken(backends: list[dict[str, Any]]) -> int:
        return sum(_taken(one) for one in backends if one["port"] == web.port)

    before = taken(_backends(site))
    site.until(lambda backends: taken(backends) >= before + count)


def _kept(site: Site, name: str) -> socket.socket:
    """A kept connection to the server of this name."""
    for _ in range(50):
        sock = socket.create_connection((site.vip, site.port), 10)
        if _ask(sock) == name:
            return sock
        sock.close()
    raise AssertionError(f"never came to {name}")


def _ask(sock: socket.socket) -> str:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    text = b""
    while b"\r\n\r\n" not in text or not text.endswith(b"\n"):
        more = sock.recv(65536)
        assert more, "the server ended it"
        text += more
    return text.partition(b"\r\n\r\n")[2].decode().strip()


SLOW = """
import socketserver, sys, time
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        time.sleep(0.2)
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nslow\\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
with Server((sys.argv[1], 0), Answer) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


def _slow(folder: Path) -> Web:
    """A server that takes 200 ms for each answer."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, HERE], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        return Web("slow", int(process.stdout.readline()), process)
