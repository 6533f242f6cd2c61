"""Three daemons with certificates of `dcosnet ca`: what one host has, all answer for, and who is gone is seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest
from daemon import PATIENCE, Daemon, vip_net

NAME = "web.shop.agentip.dcos.thisdcos.directory"

CONFIG = """
[node]
name = "{name}"
address = "127.0.0.1"
state_dir = "state"
[gossip]
cluster = "{cluster}"
listen = "tcp:0:interface=127.0.0.1"
seeds = [{seeds}]
ca = "../{name}/ca.pem"
cert = "node.pem"
key = "node.key"
[files]
path = "services.d"
[l4lb]
plane = "userspace"
named_vips = ["{net}.{first}-{net}.{last}"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
"""

SERVICE = """
[[service]]
name = "web"
group = "shop"
instance = "{name}"
address = "127.0.0.{last}"
ports = [{{ port = 8001, vip = "/web:8000" }}]
"""


def dcosnet(*arguments: object) -> None:
    command = [Path(sys.executable).with_name("dcosnet"), *arguments]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


class Fleet:
    """Hosts by name; the folder of each is what `dcosnet ca issue` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Daemon] = {}
        self.authority("prod")

    def authority(self, cluster: str) -> Path:
        dcosnet("ca", "init", "--cluster", cluster, "--out", self.folder / cluster)
        return self.folder / cluster

    def add(self, name: str, *seeds: str, cluster: str = "prod") -> Daemon:
        dcosnet("ca", "issue", name, "--ca", self.folder / cluster, "--out", self.folder)
        first = 1 + 60 * len(self.hosts)  # all are on one host, so each has VIPs of its own
        text = CONFIG.format(
            name=name,
            cluster=cluster,
            seeds=", ".join(f'"{seed}"' for seed in seeds),
            net=vip_net(),
            first=first,
            last=first + 50,
        )
        self.hosts[name] = Daemon(self.folder / name, text)
        self.hosts[name].start()
        return self.hosts[name]


def endpoint(daemon: Daemon) -> str:
    return str(daemon.ready()["parts"]["gossip"]["facts"]["listen"][0])


def sees(daemon: Daemon, **states: str) -> None:
    """Wait until it sees the members so."""
    daemon.until(
        "/v1/members", lambda reply: {one["name"]: one["state"] for one in reply["members"]}.items() >= states.items()
    )


def backends(daemon: Daemon) -> set[str]:
    _, vips = daemon.get("/v1/vips")
    return {backend["ip"] for vip in vips for backend in vip["backend"]}


def addresses(daemon: Daemon) -> set[str]:
    where, port = daemon.dns
    reply = dns.query.udp(dns.message.make_query(NAME, "A"), where, timeout=PATIENCE, port=int(port))
    return {str(record) for answer in reply.answer for record in answer}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Killed at the end of the test, those that still run."""
    made = Fleet(tmp_path)
    yield made
    for daemon in made.hosts.values():
        if daemon.process is not None:
            daemon.kill()


def test_what_one_host_serves_all_answer_for_until_it_is_killed_and_when_it_is_back(fleet: Fleet) -> None:
    """A service file on two of three hosts; a kill -9 takes away the backends of one, and a start brings them back."""
    a = fleet.add("host-a")
    b = fleet.add("host-b", endpoint(a))
    c = fleet.add("host-c", endpoint(a))
    for one in (a, b, c):
        sees(one, **{"host-a": "alive", "host-b": "alive", "host-c": "alive"})
    (b.services / "web.toml").write_text(SERVICE.format(name="b", last=12))
    (c.services / "web.toml").write_text(SERVICE.format(name="c", last=13))
    both = {"127.0.0.12", "127.0.0.13"}
    for one in (a, b, c):
        one.wait(lambda one=one: backends(one) == both, lambda one=one: f"backends: {backends(one)}")
        one.wait(lambda one=one: bool(addresses(one)))

    c.kill()
    for one in (a, b):
        one.wait(lambda one=one: backends(one) == {"127.0.0.12"}, lambda one=one: f"backends: {backends(one)}")
    c.start()
    for one in (a, b, c):
        sees(one, **{"host-a": "alive", "host-b": "alive", "host-c": "alive"})
        one.wait(lambda one=one: backends(one) == both, lambda one=one: f"backends: {backends(one)}")

    # A stop is a restart that is not over yet, unless leave_on_stop says otherwise.
    c.stop()
    sees(a, **{"host-c": "unreachable"})


def test_a_host_of_another_authority_is_refused_and_harms_nobody(fleet: Fleet) -> None:
    """It is said on both sides; the others stay linked."""
    fleet.authority("trial")
    a = fleet.add("host-a")
    b = fleet.add("host-b", endpoint(a))
    sees(a, **{"host-b": "alive"})
    stranger = fleet.add("host-x", endpoint(a), cluster="trial")
    (refused,) = stranger.until("/v1/members", lambda reply: bool(reply["refusals"]))["refusals"]
    assert refused["reason"] == "foreign"
    (refused,) = a.until("/v1/members", lambda reply: bool(reply["refusals"]))["refusals"]
    assert (refused["reason"], refused["by"]) == ("certificate", "peer")
    sees(a, **{"host-a": "alive", "host-b": "alive"})
    assert "host-x" not in {one["name"] for one in b.get("/v1/members")[1]["members"]}
    stranger.until("/v1/status", lambda reply: bool(reply["parts"]["gossip"]["facts"]["problems"]))
