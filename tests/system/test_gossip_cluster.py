"""
A cluster of real processes, under all that happens to processes, disks, certificates and networks.

Sixteen on loopback, and six in network namespaces that the tests make, where
packets can be lost. Each test begins with a cluster that is whole.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
from daemon import PATIENCE, vip_net
from fleet import CLUSTER, GOSSIP, Fleet, ca, later
from namespace import Lan

from dcosnet.cli.authority import Authority
from dcosnet.gossip.messages import CloseCode, Hello
from dcosnet.gossip.rings import Rings
from dcosnet.gossip.wire import Reader, encode

pytestmark = pytest.mark.system

FOLDER = Path(__file__).resolve().parents[1]
SIZE = 16


@pytest.fixture(scope="module")
def _sixteen(tmp_path_factory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), {f"{vip_net()}.{number}": () for number in range(1, SIZE + 1)})
    yield fleet
    fleet.close()


@pytest.fixture
def fleet(_sixteen) -> Fleet:
    """Sixteen processes on loopback, with TLS; all see all."""
    _sixteen.mend()
    return _sixteen


def test_all_see_all(fleet):
    """Every host answers for the tasks of all, by name and by VIP, though only three of them are seeds."""
    for node in fleet:
        assert node.resolve() == fleet.addresses
        assert node.members().keys() == fleet.names


def test_a_killed_process_takes_its_names_along_and_brings_them_back(fleet):
    """A host that is gone is out of traffic at once, and out of DNS soon; nobody has to say that it is back."""
    victim = fleet[4]
    others = fleet.others(victim)
    left = fleet.addresses - {victim.address}
    generation = others[0].members()[victim.name]["generation"]
    victim.kill()
    for node in others:
        node.backends(left)
    for node in others:
        node.sees({name: "dead" if name == victim.name else "alive" for name in fleet.names})
        node.names(left)
        assert node.resolve() == left
    victim.start()
    fleet.whole()
    assert others[0].members()[victim.name]["generation"] > generation


def verdicts(nodes, state):
    return {node.name: node.verdicts(state) for node in nodes}


@pytest.mark.parametrize(("number", "seconds", "state"), [(6, 3, "unreachable"), (7, 15, "dead")])
def test_a_process_that_stood_still_comes_back_without_a_restart(fleet, number, seconds, state):
    """Whether a host swapped or a hypervisor paused it: it alone is doubted, and it doubts nobody afterwards."""
    victim = fleet[number]
    others = fleet.others(victim)
    before = {verdict: verdicts(fleet, verdict) for verdict in ("unreachable", "dead")}
    known = others[0].members()[victim.name]
    over = later(seconds)
    victim.pause_process()
    for node in others:
        node.sees({name: state if name == victim.name else "alive" for name in fleet.names})
    others[0].wait(over)
    victim.go_on()
    fleet.whole()
    for verdict, counts in before.items():
        once = 1 if verdict in ("unreachable", state) else 0
        expected = {name: count + (once if name != victim.name else 0) for name, count in counts.items()}
        assert verdicts(fleet, verdict) == expected
    now = others[0].members()[victim.name]
    assert now["generation"] == known["generation"], "it was not restarted"
    assert now["incarnation"] > known["incarnation"], "it has refuted what was said of it"


class Writer(threading.Thread):
    """Writes durable keys one after the other until the node is gone; keeps what was acknowledged."""

    def __init__(self, node):
        super().__init__()
        self.node = node
        self.acknowledged = {}

    def run(self):
        for number in range(100_000):
            try:
                key = self.node.put(f"{number:05}", f"value of {number}")
            except OSError:
                return
            self.acknowledged[key] = f"value of {number}"


def test_a_lost_disk_loses_nothing_that_was_acknowledged(fleet):
    """The process is killed in the midst of its writes and its disk wiped: the others have what it promised."""
    victim = fleet[8]
    writer = Writer(victim)
    writer.start()
    try:
        victim.wait(lambda: len(writer.acknowledged) >= 50)
    finally:
        victim.kill()
        writer.join()
    shutil.rmtree(victim.folder / "state")
    victim.start()
    fleet.whole()
    for node in fleet:
        node.until("/v1/ledger", lambda ledger: ledger.items() >= writer.acknowledged.items())
    key = victim.put("afterwards", "and it goes on")
    fleet[9].until("/v1/ledger", lambda ledger: ledger.get(key) == "and it goes on")


RELOADS = "dcosnet_gossip_certificate_reloads_total"


def connections(fleet):
    """The TCP connections of gossip that stand, as the kernel knows them."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, state, *_ = line.split()
        host, port = (int(text, 16) for text in there.split(":"))
        if state == "01" and port == GOSSIP and str(ip_address(struct.pack("=I", host))) in fleet.addresses:
            found.add((here, there))
    return found


def test_certificates_and_the_authority_are_replaced_without_a_link_dropped(fleet):
    """A renewal is daily work: no restart, no verdict, and in the end the old authority is believed by nobody."""

    def standing():
        """Who is in which life, and every link that was lost or refused since the start."""
        lives = {
            (node.name, name): (one["generation"], one["incarnation"])
            for node in fleet
            for name, one in node.members().items()
        }
        counts = {
            (node.name, series): count
            for node in fleet
            for series, count in node.metrics().items()
            if series.startswith(
                ("dcosnet_gossip_links_lost", "dcosnet_gossip_links_refused", "dcosnet_gossip_verdicts")
            )
        }
        return lives | counts

    def replaced(change):
        reloads = {node.name: node.metrics()[RELOADS] for node in fleet}
        for node in fleet:
            change(node)
        for node in fleet:
            node.until("/metrics", lambda _, node=node: node.metrics()[RELOADS] > reloads[node.name])
            node.until("/v1/status", lambda status: not status["parts"]["gossip"]["facts"]["problems"])

    rings = Rings(fleet.names)
    for node in fleet:
        node.wait(
            lambda node=node: (
                rings.neighbours(node.name) <= {name for name, one in node.members().items() if one["linked"]}
            )
        )
    successor = fleet.folder / "successor"
    ca("init", "--cluster", CLUSTER, "--out", successor)
    old, new = ((folder / "ca.pem").read_bytes() for folder in (fleet.authority, successor))
    before, connected = standing(), connections(fleet)
    replaced(fleet.issue)
    replaced(lambda node: (node.tls / "ca.pem").write_bytes(old + new))
    replaced(lambda node: fleet.issue(node, successor))
    replaced(lambda node: (node.tls / "ca.pem").write_bytes(new))
    fleet.authority = successor
    assert dict(standing().items() ^ before.items()) == {}
    # Beside those of the rings there may have been others, that nobody needed for longer than ten seconds.
    assert len(connected & connections(fleet)) == sum(len(rings.neighbours(name)) for name in fleet.names) / 2
    # New links are made with what is new: one that starts now knows the new authority alone.
    fleet[10].stop()
    fleet[10].start()
    fleet.whole()


def test_all_restart_at_once(fleet):
    """After a power cut there is nobody to ask: they find each other, and what was durable is there."""
    durable = fleet[0].ledger() | {fleet[11].put("before", "the power cut"): "the power cut"}
    for node in fleet:
        node.kill()
    fleet.start(at_once=SIZE)
    fleet.whole()
    for node in fleet:
        node.until("/v1/ledger", lambda ledger: ledger == durable)
        assert node.resolve() == fleet.addresses


# --- the network ------------------------------------------------------------


HOSTS = 6


@pytest.fixture(scope="module")
def _network(tmp_path_factory, require_program):
    lan = Lan(require_program, HOSTS)
    try:
        if not lan.there:
            pytest.skip("this user may not make network namespaces and join them")
        places = {lan.address(number): host.prefix() for number, host in enumerate(lan.hosts)}
        fleet = Fleet(tmp_path_factory.mktemp("hosts"), places)
        yield lan, fleet
        fleet.close()
    finally:
        lan.close()


@pytest.fixture
def lan(_network) -> Lan:
    """Six hosts on a network of their own; nothing is lost yet."""
    _network[0].calm()
    return _network[0]


@pytest.fixture
def hosts(_network, lan) -> Fleet:
    """The processes on these hosts; all see all."""
    _network[1].mend()
    return _network[1]


ASK = """
import sys
sys.path.insert(0, {path!r})
from fleet import resolve
print(sorted(resolve({address!r})))
"""


def resolved(lan, node, number):
    """What a client on a host hears from the DNS server there."""
    return literal_eval(lan.hosts[number].python(ASK.format(path=str(FOLDER), address=node.address)))


FRAMES = 'dcosnet_gossip_frames_total{{direction="in",type="{}"}}'


def answers(node):
    metrics = node.metrics()
    return sum(metrics.get(FRAMES.format(kind), 0.0) for kind in ("ping", "pong"))


@pytest.mark.parametrize("percent", [5, 20])
def test_lost_packets_are_nobodys_death(lan, hosts, percent):
    """A bad cable makes links slow and some fail; nobody dies of it, and what is written reaches all."""
    before = {node.name: (node.verdicts("dead"), answers(node)) for node in hosts}
    for number in range(HOSTS):
        assert lan.drop(number, f"meta random < {percent * 2**32 // 100}").returncode == 0
    written = {node.put(f"at-{percent}", node.name): node.name for node in hosts}
    for node in hosts:
        node.until("/v1/ledger", lambda ledger: ledger.items() >= written.items())
        # Some fifteen seconds of pings over each of its links.
        node.wait(lambda node=node: answers(node) > before[node.name][1] + 15 * (HOSTS - 1))
    assert all(lan.dropped(number) > 0 for number in range(HOSTS))
    lan.calm()
    hosts.whole()
    assert {node.name: node.verdicts("dead") for node in hosts} == {name: dead for name, (dead, _) in before.items()}


def test_both_halves_go_on_and_come_together_again(lan, hosts):
    """Nobody decides which half is right: each serves what it reaches, takes writes, and in the end both know all."""
    halves = (range(3), range(3, HOSTS))
    for half, other in (halves, halves[::-1]):
        for number in half:
            addresses = ", ".join(lan.address(one) for one in other)
            assert lan.drop(number, f"ip saddr {{ {addresses} }}").returncode == 0
    for half in halves:
        here = {hosts[number].address for number in half}
        names = {hosts[number].name for number in half}
        for number in half:
            node = hosts[number]
            node.backends(here)
            node.sees({name: "alive" if name in names else "dead" for name in hosts.names})
            node.names(here)
            assert set(resolved(lan, node, number)) == here
    written = {node.put("apart", node.name): node.name for node in hosts}
    lan.calm()
    hosts.whole()
    for node in hosts:
        node.until("/v1/ledger", lambda ledger: ledger.items() >= written.items())
        assert set(resolved(lan, node, hosts.nodes.index(node))) == hosts.addresses
    assert len({str(sorted(node.ledger().items())) for node in hosts}) == 1


@pytest.mark.parametrize(("number", "way"), [(1, "in"), (4, "out")])
def test_one_host_that_is_cut_one_way_dies_alone(lan, hosts, number, way):
    """It can still say of others that they are silent, or hear that it is; neither costs anybody else the life."""
    victim = hosts[number]
    others = hosts.others(victim)
    before = verdicts(others, "dead")
    if way == "in":
        assert lan.drop(number, "ip saddr 10.99.0.0/24").returncode == 0
    else:
        for other in range(HOSTS):
            assert lan.drop(other, f"ip saddr {victim.address}").returncode == 0
    left = hosts.addresses - {victim.address}
    for node in others:
        node.backends(left)
        node.sees({name: "dead" if name == victim.name else "alive" for name in hosts.names})
    lan.calm()
    hosts.whole()
    assert verdicts(others, "dead") == {name: count + 1 for name, count in before.items()}


def test_a_host_that_falls_silent_is_missed_and_welcomed_back(lan, hosts):
    """A cable is pulled and put back: nothing closes a connection, nothing is restarted."""
    number = 2
    victim = hosts[number]
    others = hosts.others(victim)
    lan.plug(number, "down")
    left = hosts.addresses - {victim.address}
    for node in others:
        node.backends(left)
        node.sees({name: "dead" if name == victim.name else "alive" for name in hosts.names})
        node.names(left)
    assert victim.address in resolved(lan, victim, number), "it goes on serving what is its own"
    lan.plug(number, "up")
    hosts.whole()


# --- bad input --------------------------------------------------------------


def refused(node, reason, by="here"):
    """How often a node has closed a link for a reason, or was told so."""
    return node.metrics().get(f'dcosnet_gossip_links_refused_total{{by="{by}",reason="{reason}"}}', 0.0)


def turned_away(node, reason):
    """How often a node has refused a connection for a reason."""
    return node.metrics().get(f'dcosnet_gossip_connections_refused_total{{reason="{reason}"}}', 0.0)


def command(node):
    """What `dcosnet members` says, and its exit code."""
    argv = [str(Path(sys.executable).with_name("dcosnet")), "--api", f"unix:{node.socket}", "members"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def nobody_is_harmed(fleet, *but):
    """Nobody but these comes to a verdict, loses a link to another, or has a problem."""
    others = fleet.others(*but)
    names = {node.name for node in others}

    def state():
        lives = {
            (node.name, name): (one["state"], one["degraded"], one["generation"], one["incarnation"])
            for node in others
            for name, one in node.members().items()
            if name in names
        }
        # Whom something befalls was unreachable for a while, perhaps.
        return lives if but else lives | verdicts(others, "unreachable")

    def problems():
        # That one of the past is gone meanwhile is no harm.
        told = ((node, name, one["problem"]) for node in others for name, one in node.members().items())
        return {(node.name, name, problem) for node, name, problem in told if problem is not None and name in names}

    before = state(), problems()
    yield
    assert dict(state().items() ^ before[0].items()) == {}
    assert problems() <= before[1]


def expired(fleet, stranger):
    fleet.issue(stranger)
    authority = Authority.load(fleet.authority)
    authority.issue(stranger.name, stranger.tls, 1, datetime.now(UTC) - timedelta(days=3), renew=True)


def foreign(fleet, stranger):
    made = fleet.folder / "foreign"
    ca("init", "--cluster", CLUSTER, "--out", made)
    fleet.issue(stranger, made)
    (stranger.tls / "ca.pem").write_bytes((made / "ca.pem").read_bytes() + (fleet.authority / "ca.pem").read_bytes())


def identity(fleet, stranger):
    """Of another cluster that has the same authority."""
    fleet.issue(stranger)
    authority = attrs.evolve(Authority.load(fleet.authority), cluster="other")
    authority.issue(stranger.name, stranger.tls, 1, datetime.now(UTC), renew=True)


@pytest.mark.parametrize(
    ("certify", "cluster", "why"),
    [
        (expired, CLUSTER, "expired on"),
        (foreign, CLUSTER, "not in gossip.ca"),
        (identity, "other", "other"),
    ],
    ids=["expired", "foreign", "another cluster"],
)
def test_who_cannot_show_that_he_belongs_here_is_refused_with_the_reason(fleet, certify, cluster, why):
    """Both ends tell their people why, in the log, in `dcosnet members` and in a counter; nobody else notices."""
    door, reason = fleet[0], certify.__name__
    stranger = fleet.stranger(f"{reason}-host", "stranger", f"{vip_net()}.{100 + len(reason)}", cluster=cluster)
    certify(fleet, stranger)
    before = turned_away(door, reason)
    with nobody_is_harmed(fleet):
        stranger.start()
        door.wait(lambda: turned_away(door, reason) > before)
        stranger.until("/v1/members", lambda told: bool(told["refusals"]))
        code, text = command(door)
        assert code == 1
        assert "was refused" in text
        assert why in text
        assert "was refused: " in door.log
        assert why in door.log
        code, text = command(stranger)
        assert code == 1
        assert "refused" in text
        assert "refused" in stranger.log
        assert stranger.until("/v1/status", lambda s: bool(s["parts"]["gossip"]["facts"]["problems"]))
        stranger.kill()


def test_garbage_at_the_port_is_counted_and_forgotten(fleet):
    """Somebody's port scanner, or a client that took the wrong port."""
    door = fleet[1]
    before = turned_away(door, "protocol")
    with nobody_is_harmed(fleet):
        for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 64, b"\x16\x03\x01\x00\x05hello"):
            with socket.create_connection((door.address, GOSSIP), PATIENCE) as connection:
                connection.sendall(garbage)
                with suppress(ConnectionError):
                    while connection.recv(4096):
                        pass
        door.wait(lambda: turned_away(door, "protocol") >= before + 3)
        code, text = command(door)
        assert code == 1
        assert "was refused" in text
        assert "was refused: " in door.log


class Rogue:
    """Somebody with a certificate of the cluster, who says what he wants."""

    def __init__(self, fleet, name):
        node = fleet.stranger(name, name, f"{vip_net()}.120")
        fleet.issue(node)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.check_hostname = False
        self._context.load_verify_locations(node.tls / "ca.pem")
        self._context.load_cert_chain(node.tls / "node.pem", node.tls / "node.key")
        self._context.set_alpn_protocols(["xgossip/1"])
        self.name = name

    def say(self, node, *frames):
        """Say this to a node; gives what it says until it hangs up."""
        messages, reader = [], Reader()
        with (
            socket.create_connection((node.address, GOSSIP), PATIENCE) as connection,
            self._context.wrap_socket(connection) as tls,
        ):
            for frame in frames:
                tls.sendall(frame)
            with suppress(ConnectionError, ssl.SSLEOFError):
                while data := tls.recv(65536):
                    messages += reader.feed(data)
        return messages

    def hello(self, cluster=CLUSTER, name=None, clock=0):
        return encode(Hello(1, 1, cluster, name or self.name, 1, 7, clock, bytes(8), fresh=False))


@pytest.fixture(scope="module")
def rogue(_sixteen):
    return Rogue(_sixteen, "rogue")


def test_nonsense_of_a_peer_closes_its_link_and_in_the_end_its_door(fleet, rogue):
    """Whoever has a certificate may still be broken, or hostile; each frame is judged before it is kept."""
    door = fleet[2]
    with nobody_is_harmed(fleet):
        # People are told once of each reason, and the counter tells how often.
        for code, reason, frames in (
            (CloseCode.OVERSIZE, "oversize", [struct.pack(">IB", 1 << 31, 1), bytes(4096)]),
            (CloseCode.WRONG_CLUSTER, "wrong_cluster", [rogue.hello(cluster="other")]),
            (CloseCode.IDENTITY, "identity", [rogue.hello(name="host-05")]),
            (CloseCode.MALFORMED, "malformed", [rogue.hello(), struct.pack(">IB", 4, 3) + b"\xc1\xc1\xc1\xc1"]),
            (CloseCode.MALFORMED, "malformed", [rogue.hello(), struct.pack(">IB", 4, 200) + bytes(4)]),
            (CloseCode.QUARANTINE, "quarantine", [rogue.hello()]),
        ):
            before = refused(door, reason)
            said = rogue.say(door, *frames)
            assert said[-1].code == code, said
            assert refused(door, reason) == before + 1
            if not before:
                assert f"was refused: {said[-1].text}" in door.log
            assert said[-1].text in command(door)[1]


def test_of_two_processes_with_one_name_the_newer_stays(fleet):
    """A host was cloned: one of the two stops to take part and says so, and no third is harmed."""
    first = fleet[13]
    second = fleet.stranger("clone", first.name, f"{vip_net()}.130")
    shutil.copytree(first.tls, second.tls)
    with nobody_is_harmed(fleet, first):
        second.start()
        first.until("/metrics", lambda _: first.metrics()["dcosnet_gossip_superseded"] == 1)
        assert "takes no part in the cluster any more" in first.log
        assert first.get("/readyz")[0] == 503
        code, text = command(first)
        assert code == 1
        assert "give one of them another node.name" in text
        for node in fleet.others(first):
            node.names(fleet.addresses - {first.address} | {second.address})
        second.kill()
        first.kill()
        first.start()
        fleet.whole()


def test_a_clock_that_is_an_hour_ahead_is_told_of_and_decides_nothing(fleet):
    """What is measured does not hang on the time of day; people are told which clock to set."""
    ahead = fleet[14]
    others = fleet.others(ahead)
    with nobody_is_harmed(fleet, ahead):
        ahead.kill()
        with fleet.clock_ahead(ahead, 3600):
            ahead.start()
        fleet.whole()
        key = ahead.put("ahead", "of time")
        for node in others:
            node.until("/v1/ledger", lambda ledger: ledger.get(key) == "of time")
        linked = [node for node in others if node.members()[ahead.name]["linked"]]
        assert linked
        for node in linked:
            problem = node.members()[ahead.name]["problem"]
            assert "its clock is 36" in problem
            code, text = command(node)
            assert code == 1
            assert problem in text
            assert node.metrics()["dcosnet_kv_leaps_total"] > 0
            assert f"the clock of {ahead.name} is 36" in node.log
        assert "this host's clock is 36" in command(ahead)[1]
        ahead.kill()
        ahead.start()
        fleet.whole()
