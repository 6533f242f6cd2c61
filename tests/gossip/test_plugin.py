"""What `[gossip]` may say, and what is told to who says something else."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest
from twisted.internet.task import Clock

from dcosnet.errors import ConfigErrors
from dcosnet.gossip.plugin import Settings, make_part
from dcosnet.interfaces import IMembership, IMetrics
from dcosnet.io.turns import Turns
from dcosnet.model.node import Node

LOOPBACK = {"cluster": "prod", "listen": "tcp:0:interface=127.0.0.1"}


class Toolbox:
    """What the part takes from a toolbox."""

    rng = Random(1)

    def __init__(self, state_dir, address="127.0.0.1", name="host-a"):
        self.reactor, self.state_dir = Clock(), state_dir
        self.node = Node(name, ip_address(address))
        self.later = Turns(self.reactor).later

    def __getitem__(self, interface):
        return object()


def problems(folder, address="127.0.0.1", name="host-a", **settings):
    with pytest.raises(ConfigErrors) as raised:
        make_part(Settings(**settings), Toolbox(folder, address, name))
    return {problem.path: problem.reason for problem in raised.value.problems}


def test_without_a_table_a_node_is_alone_and_ready(tmp_path):
    """Most configurations of a first day have no cluster."""
    part = make_part(Settings(), Toolbox(tmp_path))
    assert list(part.offers[IMembership].members.value) == ["host-a"]
    assert part.offers[IMembership].unsynced.value is None
    assert part.ready() is None
    ((interface, metrics),) = part.contributes
    assert interface is IMetrics
    names = [metric.name for metric in metrics.collect()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("setting", [{"seeds": ("a",)}, {"listen": "tcp:1"}, {"key": "x"}, {"advertise": "a"}])
def test_what_is_for_a_cluster_wants_its_name(setting, tmp_path):
    """Or somebody believes to have a cluster."""
    (name,) = setting
    assert problems(tmp_path, **setting) == {f"gossip.{name}": "is of no use without gossip.cluster; name the cluster"}


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ({}, "10.0.0.1"),
        ({"listen": "tcp:62501"}, "127.0.0.1"),
        ({"listen": ("tcp:1:interface=127.0.0.1", "tcp:1:interface=10.0.0.1")}, "127.0.0.1"),
        ({"seeds": ("10.0.0.2",)}, "127.0.0.1"),
        ({"seeds": ("host-b",)}, "127.0.0.1"),
        ({"advertise": "10.0.0.2:1"}, "127.0.0.1"),
    ],
)
def test_plaintext_is_for_loopback_alone(more, address, tmp_path):
    """Every address that is involved; the remedy is two commands."""
    found = problems(tmp_path, address, **LOOPBACK | more)
    assert set(found) == {"gossip.ca"}
    assert "`dcosnet ca init --cluster prod` and `dcosnet ca issue host-a`" in found["gossip.ca"]


@pytest.mark.parametrize(
    "more",
    [{}, {"seeds": ("localhost:1", "[::1]:2")}, {"listen": "tcp6:0:interface=\\:\\:1"}, {"advertise": "127.0.0.9:5"}],
)
def test_plaintext_on_loopback_needs_no_certificates(more, tmp_path):
    """For a look at it, on one machine."""
    assert make_part(Settings(**LOOPBACK | more), Toolbox(tmp_path)).ready() == "not started yet"


@pytest.mark.parametrize(
    ("settings", "path", "reason"),
    [
        ({"cluster": "A.B"}, "gossip.cluster", "no name of a cluster"),
        ({"listen": "unix:x"}, "gossip.listen", "no TCP port"),
        ({"listen": "tcp:99999:interface=127.0.0.1"}, "gossip.listen", "no port"),
        ({"listen": ()}, "gossip.listen", "is empty"),
        ({"seeds": ("10.0.0.300",)}, "gossip.seeds", "no address"),
        ({"advertise": "0.0.0.0:1"}, "gossip.advertise", "nobody can be reached"),
        ({"ca": "ca.pem"}, "gossip.cert", "is missing"),
        ({"cert": "ca.pem", "key": "x"}, "gossip.ca", "is missing; certificates are ca, cert and key"),
    ],
)
def test_what_cannot_be_is_told_by_its_setting(settings, path, reason, tmp_path):
    """All at once, before anything is bound."""
    assert reason in problems(tmp_path, **LOOPBACK | settings)[path]


def test_a_node_has_a_name_that_certificates_can_carry(tmp_path):
    """A name with a space stands in keys, but in no URI."""
    assert "letters" in problems(tmp_path, name="host a", **LOOPBACK)["node.name"]


def test_with_certificates_it_may_listen_for_all(hosts, tmp_path):
    """They are read now, so that a file that is missing is told at the start."""
    files = hosts.files("host-a")
    given = {"cluster": "prod", "ca": files.ca, "cert": files.cert, "key": files.key, "seeds": ("10.0.0.2", "host-b:1")}
    assert make_part(Settings(**given), Toolbox(tmp_path, "10.0.0.1")).ready() == "not started yet"
    files.cert.unlink()
    with pytest.raises(Exception, match="cannot be read"):
        make_part(Settings(**given), Toolbox(tmp_path, "10.0.0.1"))
