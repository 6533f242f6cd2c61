"""
The store against a model, through writes, refusals, restarts and power cuts.

The model: what was acknowledged is there; what is under way may be, and what
the disk refused may be after the next start, until something is acknowledged
after it; nothing else is. A disk that refuses at the start is in `test_service`,
each point of a workload in `test_crashes`.
"""

import errno
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dcosnet.model.entry import Lifetime
from dcosnet.testing.contracts.keyvalue import Reader, outcome
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE
ROOT = Path("/state")
CALLS = ["write", "sync", "truncate", "rename", "create", "sync_directory", "unlink"]

changes = st.dictionaries(
    st.sampled_from(["a/1", "a/2", "b/1"]), st.none() | st.sampled_from([b"", b"1", b"2"]), min_size=1
)


class StoreMachine(RuleBasedStateMachine):
    """One node's store."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = StoreRig(ROOT, MemoryDisk(ROOT))
        self.on_disk = {}
        self.pending = []
        self.doubtful = []
        self.last = (0, 0)
        self.subscribe()

    def subscribe(self):
        self.readers = {prefix: Reader() for prefix in ("", "a/", "c/")}
        for prefix, reader in self.readers.items():
            self.rig.store.subscribe(prefix, reader.receive)

    def durable(self):
        """What is to be found after a restart if all goes well from here on."""
        return {key: one.value for key, one in self.rig.store.entries().items() if one.lifetime is DURABLE}

    def settle(self):
        """Sort out what became of the writes that were under way."""
        waiting = []
        for done, state in self.pending:
            result = outcome(done)
            if result == "waiting":
                waiting.append((done, state))
            elif result == "done":
                self.on_disk = self.on_disk if state is None else state
                self.doubtful = []
            else:
                assert isinstance(result, OSError)
                self.doubtful.append(state)
        self.pending = waiting

    @rule(changes=changes, lifetime=st.sampled_from(Lifetime))
    def write(self, changes, lifetime):
        version = self.rig.store.describe()["version"]
        done = self.rig.store.write(changes, lifetime)
        for key, value in changes.items():
            entry = self.rig.store.get(key)
            assert (entry and entry.value) == value
            assert entry is None or entry.lifetime is lifetime
        written = self.rig.store.describe()["version"] - version
        assert written in (0, 1)
        # A step that was acknowledged at once has nothing on disk; one that
        # changed nothing waits for an earlier one.
        if not done.called:
            self.pending.append((done, self.durable() if written else None))

    @rule()
    def turn(self):
        self.rig.turn()

    @rule()
    def hold(self):
        self.rig.held = True

    @rule()
    def release(self):
        self.rig.held = False
        self.rig.release()

    @rule(call=st.sampled_from(CALLS), number=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def refuse(self, call, number):
        self.rig.disk.refuse = {call: number}

    @rule()
    def repair(self):
        self.rig.disk.refuse = {}

    @rule(seconds=st.integers(-100, 100))
    def jump(self, seconds):
        """The host's time goes back as well."""
        self.rig.now += seconds

    @rule()
    def restart(self):
        self.rig.stop()
        self.settle()
        assert self.pending == []
        self.rig.disk.refuse = {}
        self.rig.start()
        self.check_reopened()

    @rule(seed=st.integers(0, 1000))
    def power_cut(self, seed):
        self.settle()
        self.crash(seed)

    @rule(changes=changes, calls=st.integers(0, 8), seed=st.integers(0, 1000))
    def power_cut_in_a_write(self, changes, calls, seed):
        """After any of the calls that it makes of the disk."""
        self.rig.disk.last = len(self.rig.disk.calls) + calls
        self.write(changes, DURABLE)
        self.rig.turn()
        self.rig.release()
        self.settle()
        self.crash(seed)

    def crash(self, seed):
        self.doubtful += [state for _, state in self.pending]
        self.rig.crash(Random(seed))
        self.pending = []
        self.rig.held = False
        self.rig.disk.refuse = {}
        self.rig.start()
        self.check_reopened()

    def check_reopened(self):
        entries = self.rig.store.entries()
        found = {key: one.value for key, one in entries.items()}
        assert found == self.on_disk or found in self.doubtful
        self.on_disk, self.doubtful = found, []
        assert all(one.lifetime is DURABLE for one in entries.values())
        assert self.rig.store.describe()["damaged"] is None
        self.subscribe()

    @precondition(lambda self: not self.rig.held)
    @rule()
    def all_is_told(self):
        """Once nothing is under way, readers have what the store has."""
        self.rig.turn()
        self.rig.turn()
        self.settle()
        for prefix, reader in self.readers.items():
            assert reader.calls[0] is None
            assert reader.entries == reader.view == self.rig.store.entries(prefix)
            assert frozenset() not in reader.calls

    @invariant()
    def acknowledged_writes_are_there(self):
        """Nothing that was acknowledged is gone while nothing was written upon it."""
        self.settle()
        if not self.pending:
            assert self.durable() == self.on_disk

    @invariant()
    def versions_grow(self):
        facts = self.rig.store.describe()
        now = (facts["generation"], facts["version"])
        assert now >= self.last
        self.last = now
        assert all(one.version <= facts["version"] for one in self.rig.store.entries().values())

    def teardown(self):
        self.rig.disk.refuse = {}
        self.rig.stop()
        for done, _ in self.pending:
            outcome(done)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
