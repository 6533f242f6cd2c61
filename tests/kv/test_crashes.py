"""
Power lost, or the process killed, after every call that a workload makes of its disk.

What was acknowledged is there afterwards, a deleted key does not come back, and
the next start succeeds.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random

import pytest

from dcosnet.model.delta import NOTHING
from dcosnet.model.entry import Lifetime
from dcosnet.testing.contracts.keyvalue import outcome
from dcosnet.testing.contracts.replica import delta
from dcosnet.testing.memory_disk import MemoryDisk, PowerCut
from dcosnet.testing.store_rig import StoreRig

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE
ROOT = Path("/state")
LARGE = bytes(400_000)
SEEDS = range(6)


class Workload:
    """Writes, restarts, and what others say; knows at each moment what must be found, and what else may be."""

    def __init__(self, last=None):
        self.disk = MemoryDisk(ROOT)
        self.disk.last = last
        self.acknowledged, self.under_way = {}, {}
        # By owner: what it said at each version, and up to which it is said to be on this disk.
        self.said, self.stored = {"b": {}, "c": {}}, {}
        self.rig, self.cut = None, False
        try:
            self.rig = StoreRig(ROOT, self.disk)
            self.run()
        except PowerCut:  # where the reactor's own thread used the disk: in a start
            self.cut = True

    def run(self):
        self.follow()
        self.write({"a": b"1", "b": b"1"})
        self.hear("b", {"x": b"1", "y": b"1"}, 1)
        self.write({"a": None, "c": b"1"})
        self.hear("b", {"x": None, "z": b"1"}, 2, 1)
        self.write({"b": b"2"}, LEASE)
        self.hear("c", {"v": b"1"}, 1)
        self.restart()
        self.write({"d": b"1"})
        for index in range(3):  # until the log is written anew, shorter
            self.write({"large": LARGE + bytes([index])})
        self.write({"d": None, "e": b"1"})
        self.hear("b", {"y": b"2"}, 1, generation=2)
        self.hear("c", {"v": b"2"}, 2, 1)
        self.restart()
        self.write({"large": None})

    @property
    def alive(self):
        return not self.cut and not self.rig.dead

    def follow(self):
        self.rig.store.follow_copies(self.stored.__setitem__)

    def restart(self):
        if self.alive:
            self.rig.restart()
            self.follow()

    def write(self, changes, lifetime=DURABLE):
        if not self.alive:
            return
        self.under_way = {**self.acknowledged}
        for key, value in changes.items():
            self.under_way.pop(key, None)
            if value is not None and lifetime is DURABLE:
                self.under_way[key] = value
        done = self.rig.store.write(changes, lifetime)
        self.rig.turn()
        if outcome(done) == "done":
            self.acknowledged = self.under_way

    def hear(self, owner, values, version, since=0, generation=1):
        if not self.alive:
            return
        self.rig.store.take(delta(owner, values, version, since, generation, DURABLE))
        # What is not on disk yet was told all the same, if not to us.
        told = {} if since == 0 else {**self.said[owner][generation, version - 1]}
        for key, value in values.items():
            told.pop(key, None)
            if value is not None:
                told[key] = value
        self.said[owner][generation, version] = told
        self.rig.turn()


@cache
def points():
    return len(Workload().disk.calls)


def found(rig, owner):
    return {key: entry.value for key, entry in rig.store.entries().items() if entry.owner == owner}


def check(workload, disk):
    """Start over what is left, and go on."""
    rig = StoreRig(ROOT, disk)
    own = found(rig, "a")
    assert own in (workload.acknowledged, workload.under_way)
    assert rig.store.journal.damaged is None
    for owner, said in workload.said.items():
        copy = rig.store.missing(owner, NOTHING, 1 << 40)
        if copy is None:
            assert owner not in workload.stored
        else:
            assert copy.known >= workload.stored.get(owner, NOTHING)
            assert found(rig, owner) == said[copy.known]
    done = rig.store.write({"after": b"1"}, DURABLE)
    rig.turn()
    assert outcome(done) == "done"
    rig.crash(Random(0))
    rig.start()
    assert found(rig, "a") == {**own, "after": b"1"}
    rig.stop()


def test_the_workload_comes_to_all_kinds_of_calls():
    """Or the tests below would prove little."""
    workload = Workload()
    assert workload.acknowledged == {"c": b"1", "e": b"1"}
    assert {"write", "sync", "rename", "create", "sync_directory", "make_directory"} <= set(workload.disk.calls)
    assert workload.stored == {"b": (2, 1), "c": (1, 2)}
    assert workload.rig.store.journal.log.rewrites >= 1
    assert workload.disk.calls.count("rename") >= 7
    assert points() > 80
    workload.rig.stop()


@pytest.mark.parametrize("part", range(8))
def test_a_kill_after_any_call_loses_nothing(part):
    """The process is gone, and what it wrote is there."""
    for last in range(part, points(), 8):
        workload = Workload(last)
        assert not workload.alive
        workload.disk.kill()
        check(workload, workload.disk)


@pytest.mark.parametrize("part", range(8))
def test_power_lost_after_any_call_loses_nothing(part):
    """What was not synced is lost whole, in part, or not; in several ways for each call."""
    for last in range(part, points(), 8):
        workload = Workload(last)
        for seed in SEEDS:
            disk = deepcopy(workload.disk)
            disk.crash(Random(seed))
            check(workload, disk)


@pytest.mark.parametrize("seed", range(4))
def test_power_lost_again_while_it_starts_loses_nothing(seed):
    """A start writes the journal anew; power may be lost in that as well, and in the next."""
    for last in range(20, points(), 5):
        workload = Workload(last)
        disk = workload.disk
        for again in range(12):
            disk.crash(Random(seed * 100 + again))
            disk.last = again
            try:
                StoreRig(ROOT, disk)
            except PowerCut:
                continue
        disk.crash(Random(seed))
        check(workload, disk)
