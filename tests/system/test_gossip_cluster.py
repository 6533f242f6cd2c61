"""
A cluster of real processes, under all that happens to processes, disks, certificates and networks.

Sixteen on loopback, and six in network namespaces that the tests make, where
packets can be lost. Each test begins with a cluster that is whole.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import pytest
from daemon import vip_net
from fleet import Fleet, later

pytestmark = pytest.mark.system

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
