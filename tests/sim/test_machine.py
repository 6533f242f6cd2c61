"""
A cluster through whatever may happen, in any order, and what must hold all the same.

The invariants are numbered as in docs/simulator.rst. I6 has tests of its own in
`test_simulation`, and so has I9.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.sim.simulation import Simulation

NODES = 5
NAMES = tuple(f"a{number}" for number in range(1, NODES + 1))
KEYS = ("k1", "k2", "k3")
QUIET = 150.0
"""Seconds after which a cluster that nobody harms is at rest: who came and went often is held back for a minute."""

HARMLESS = 5.0
"""Seconds from unreachable to dead, at the least: who is away for less is not dead."""

names = st.sampled_from(NAMES)
keys = st.sampled_from(KEYS)


class ClusterMachine(RuleBasedStateMachine):
    """Five nodes."""

    def __init__(self):
        super().__init__()
        self.writes = {name: [] for name in NAMES}
        self.versions = {}
        self.wiped = None
        self.count = 0
        # Whom something was done to that may well end in a verdict of death, and until when it may show.
        self.harmed_until = dict.fromkeys(NAMES, 0.0)
        self.cut = False
        self.wrong = []

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed):
        self.cluster = Simulation(seed)
        self.cluster.verdicts.append(self.verdict)
        self.cluster.arrivals.append(self.arrival)
        self.cluster.start(NODES)
        self.cluster.run_until(self.cluster.whole, limit=10.0)
        self.cluster.run(2.0)

    def verdict(self, observer, member, state):
        """I8: who was not harmed is dead for nobody."""
        if state is MemberState.DEAD and max(self.harmed_until[observer], self.harmed_until[member]) < self.cluster.now:
            self.wrong.append((self.cluster.now, observer, member))

    def arrival(self, observer, owner, known, source):
        """I4: what a process knows of an owner only grows; a namespace may be dropped, and come again."""
        process = self.cluster.nodes[observer].process
        before = self.versions.get((process, owner))
        if known > (0, 0):
            assert before is None or known.generation >= before.generation, (observer, owner, before, known)
            self.versions[process, owner] = known

    def harm(self, seconds, *names):
        for name in names or NAMES:
            self.harmed_until[name] = max(self.harmed_until[name], self.cluster.now + seconds + 60.0)

    def up(self, name):
        return self.cluster.nodes[name].running

    # What is done

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 3.0, 10.0]))
    def advance(self, seconds):
        self.cluster.run(seconds)

    @rule(name=names, lost=st.booleans())
    def end(self, name, lost):
        if self.up(name):
            (self.cluster.stop if lost else self.cluster.kill)(name)
            self.harm(1e9, name)

    @rule(name=names)
    def start(self, name):
        if not self.up(name):
            self.cluster.restart(name)
            self.harmed_until[name] = 0.0
            self.harm(0.0, name)

    @precondition(lambda self: self.wiped is None and not self.cut)
    @rule(name=names)
    def wipe(self, name):
        """One disk is lost while all others run and hear each other; what was acknowledged is on one of them."""
        self.cluster.run(1.0)
        if all(map(self.up, NAMES)) and self.cluster.whole():
            self.cluster.stop(name)
            self.cluster.restart(name, wipe=True)
            self.wiped = name
            self.harm(0.0, name)

    @precondition(lambda self: self.wiped is not None)
    @rule()
    def recover(self):
        self.cluster.heal()
        self.cut = False
        for name in NAMES:
            self.start(name)
        self.cluster.run(30.0)
        self.wiped = None

    @rule(name=names, seconds=st.sampled_from([0.2, 2.0, 15.0]))
    def pause(self, name, seconds):
        if self.up(name):
            self.cluster.pause(name, seconds)
            self.harm(seconds, name)

    @rule(name=names, seconds=st.sampled_from([0.2, 2.0, 15.0]))
    def stall(self, name, seconds):
        self.cluster.stall(name, seconds)
        self.harm(seconds)

    @rule(side=st.sets(names, min_size=1, max_size=NODES - 1))
    def partition(self, side):
        self.cluster.partition(sorted(side))
        self.cut = True
        self.harm(1e9)

    @rule(name=names, other=names)
    def cut_one_way(self, name, other):
        if name != other:
            self.cluster.cut(name, other)
            self.cut = True
            self.harm(1e9)

    @rule(name=names, share=st.sampled_from([0.1, 0.5]))
    def lose(self, name, share):
        self.cluster.lose(name, share)
        self.cut = True
        self.harm(1e9)

    @precondition(lambda self: self.cut)
    @rule()
    def heal(self):
        self.cluster.heal()
        self.cut = False
        for name in NAMES:
            self.harmed_until[name] = 0.0 if self.up(name) else 1e18
        self.harm(0.0)

    @rule(name=names, seconds=st.sampled_from([-3600.0, -5.0, 5.0, 3600.0]))
    def skew(self, name, seconds):
        self.cluster.skew(name, seconds)

    @rule(name=names, changes=st.dictionaries(keys, st.booleans(), min_size=1), durable=st.booleans())
    def write(self, name, changes, durable):
        """Puts and deletions, one or several as one step."""
        if self.up(name):
            self.count += 1
            lifetime = "durable" if durable else "lease"
            values = {f"{lifetime}/{name}/{key}": b"%d" % self.count if put else None for key, put in changes.items()}
            self.writes[name].append(self.cluster.write(name, values, durable=durable))

    # What holds at all times

    @invariant()
    def nobody_is_slandered(self):
        assert self.wrong == []

    @invariant()
    def queues_are_bounded(self):
        """I7: of five nodes that write little, nothing piles up."""
        if hasattr(self, "cluster"):
            for node in self.cluster.up:
                assert node.process.longest_queue < 5000
                assert all(node.kept_for(other) < 1 << 20 for other in NAMES)

    # What holds in the end

    def teardown(self):
        if not hasattr(self, "cluster"):
            return
        self.cluster.heal()
        self.cluster.run(25.0)
        for name in NAMES:
            if not self.up(name):
                self.cluster.restart(name)
        self.cluster.run(QUIET)
        assert self.cluster.whole(), self.cluster.summary()
        assert self.cluster.equal()
        self.check_writes()
        self.check_deaths()

    def check_writes(self):
        """I1, I2, I3: durable writes are there as acknowledged, or as something later says; nothing else is."""
        for name in NAMES:
            for key in (f"durable/{name}/{key}" for key in KEYS):
                touching = [one for one in self.writes[name] if key in one.changes]
                done = [n for n, one in enumerate(touching) if one.acknowledged is not None]
                allowed = [one.changes[key] for one in touching[done[-1] if done else 0 :]]
                if not done:
                    allowed.append(None)
                for node in self.cluster.up:
                    entry = node.store.get(key)
                    assert (entry and entry.value) in allowed, (node.name, key, entry, allowed)

    def check_deaths(self):
        """I5: of a node that is dead no lease is left."""
        name = NAMES[0]
        self.cluster.write(name, {f"lease/{name}/last": b"x"})
        self.cluster.run(1.0)
        self.cluster.kill(name)
        self.cluster.run_until(lambda: self.cluster.sees(name, MemberState.DEAD), limit=40.0)
        self.cluster.run(1.0)
        for node in self.cluster.up:
            assert not [
                key
                for key, entry in node.store.entries().items()
                if entry.owner == name and entry.lifetime is Lifetime.LEASE
            ]


TestClusterMachine = ClusterMachine.TestCase
TestClusterMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
