"""Which backend gets the next flow."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dcosnet.l4lb.outliers import FIRST_SHARE, LONGEST_REST, RAMP, REST, ROW, SUSPICION
from dcosnet.l4lb.schedule import Notice, Pick, Schedule, Target
from dcosnet.l4lb.tally import Reason
from dcosnet.model.traffic import Use
from dcosnet.model.vip import Backend

every_rule = pytest.mark.parametrize("rule", list(Pick))


def backends(*weights: int) -> tuple[Backend, ...]:
    home = ip_address("10.0.0.1")
    return tuple(Backend(home, 8000 + i, home, weight) for i, weight in enumerate(weights))


def schedule(rule: Pick, *weights: int) -> Schedule:
    made = Schedule(rule, Random(7))
    made.update(backends(*weights))
    return made


@given(st.sampled_from(Pick), st.lists(st.integers(0, 3), max_size=6), st.randoms(use_true_random=False))
def test_each_open_backend_is_tried_once_and_draining_ones_never(rule, weights, rng) -> None:
    made = Schedule(rule, rng)
    made.update(backends(*weights))
    tried = []
    while (target := made.pick(0.0, tried)) is not None:
        assert target not in tried
        made.failed(target, 0.0, Reason.REFUSED)
        tried.append(target)
    assert {one.backend for one in tried} == {one for one in backends(*weights) if one.weight}


@every_rule
def test_one_that_failed_lately_is_tried_last_and_comes_back(rule) -> None:
    made = schedule(rule, 1, 1, 1)
    bad = made.pick(100.0)
    made.failed(bad, 100.0, Reason.REFUSED)
    assert all(made.pick(100.0 + SUSPICION * i / 90) is not bad for i in range(90))
    assert bad in {made.pick(100.0 + SUSPICION) for _ in range(100)}


@every_rule
def test_when_all_failed_lately_they_are_used_all_the_same(rule) -> None:
    made = schedule(rule, 1, 1)
    for _ in range(2):
        made.failed(made.pick(1.0), 1.0, Reason.REFUSED)
    assert made.pick(1.5) is not None


def test_round_robin_goes_by_weight_and_mixes() -> None:
    made = schedule(Pick.ROUND_ROBIN, 4, 2)
    ports = [made.pick(0.0).backend.port for _ in range(12)]
    assert Counter(ports) == {8000: 8, 8001: 4}
    assert all(Counter(ports[i : i + 3]) == {8000: 2, 8001: 1} for i in range(9)), "not in one run"


def test_random_goes_by_weight() -> None:
    made = schedule(Pick.RANDOM, 9, 1)
    counts = Counter(made.pick(0.0).backend.port for _ in range(2000))
    assert 1600 < counts[8000] < 2000


def test_least_takes_the_one_with_fewer_flows_for_its_weight() -> None:
    made = schedule(Pick.LEAST, 1, 2)
    for _ in range(300):
        made.pick(0.0).active += 1
    flows = {target.backend.port: target.active for target in made.targets}
    assert 180 < flows[8001] < 220


def test_least_breaks_ties_by_chance() -> None:
    made = schedule(Pick.LEAST, 1, 1)
    assert {made.pick(0.0).backend.port for _ in range(50)} == {8000, 8001}


def test_flows_are_kept_when_the_weight_changes() -> None:
    """What drains still counts, and counts on when it returns."""
    made = schedule(Pick.LEAST, 1)
    target = made.pick(0.0)
    target.active = 5
    made.update(backends(0))
    assert made.pick(0.0) is None
    assert not target.gone
    made.update(backends(1))
    assert made.pick(0.0) is target
    assert target.active == 5


def test_what_a_backend_counted_stays_when_it_goes() -> None:
    """Also what it counts while its last flow ends: a sum that falls would look like a restart."""
    made = schedule(Pick.ROUND_ROBIN, 1, 1)
    made.pick(0.0)
    first, second = made.targets
    for target in (first, second):
        target.active += 1
        made.worked(target, 0.0, 0.002)
    first.active -= 1
    made.update(())
    assert made.former.flows == 1
    assert list(made.leaving) == [second]
    second.tally.to_client += 7
    second.active -= 1
    assert (made.former.flows, made.former.to_client) == (2, 7)
    assert not made.leaving


def troubled(made: Schedule, port: int, now: float = 100.0) -> Target:
    """A backend of the schedule after it failed as often as it takes to rest."""
    made.pick(now)
    [target] = [one for one in made.targets if one.backend.port == port]
    for _ in range(ROW):
        made.failed(target, now, Reason.REFUSED)
    return target


def states(made: Schedule, now: float) -> list[Use]:
    return [one.state for one in made.tell(now)]


def test_nothing_is_made_before_there_is_a_flow() -> None:
    """Ten thousand VIPs have a hundred thousand backends, and most of them no flow."""
    made = schedule(Pick.LEAST, 1, 1)
    assert not made.targets
    assert [one.backend for one in made.tell(0.0)] == list(backends(1, 1))
    made.update(backends(1))
    assert not made.targets
    made.pick(0.0)
    assert len(made.targets) == 1


@pytest.mark.parametrize(("count", "resting"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
@every_rule
def test_at_most_half_rest(rule, count, resting) -> None:
    made = schedule(rule, *[1] * count)
    for port in range(8000, 8000 + count):
        troubled(made, port)
    assert states(made, 101.5).count(Use.RESTING) == resting
    assert {made.pick(101.5).backend.port for _ in range(100)} == set(range(8000 + resting, 8000 + count))


def test_a_rest_is_told_at_once_and_its_end_with_the_next_flow() -> None:
    told: list[Notice] = []
    made = schedule(Pick.RANDOM, 1, 1)
    made.notice = told.append
    bad = troubled(made, 8000)
    assert told == [Notice(bad.backend, REST, "5 in a row: refused")]
    made.pick(100.0 + REST - 0.1)
    assert len(told) == 1
    made.pick(100.0 + REST)
    assert told[1:] == [Notice(bad.backend, 0.0, "5 in a row: refused")]


def test_when_the_others_go_the_resting_is_used() -> None:
    made = schedule(Pick.LEAST, 1, 1)
    bad = troubled(made, 8000)
    made.update(backends(1, 0))
    assert made.pick(101.0) is bad


def test_when_some_of_the_others_go_the_first_to_return_does_so_now() -> None:
    """Two of five may rest, and of the three that stay one."""
    made = schedule(Pick.LEAST, 1, 1, 1, 1, 1)
    troubled(made, 8000)
    troubled(made, 8001, 110.0)
    assert states(made, 111.0).count(Use.RESTING) == 2
    made.update(backends(1, 1, 1))
    made.pick(111.0)
    assert states(made, 111.0) == [Use.RETURNING, Use.RESTING, Use.IN_USE]


def test_what_was_tried_leaves_the_resting_to_the_last() -> None:
    made = schedule(Pick.LEAST, 1, 1, 1)
    bad = troubled(made, 8000)
    tried: list[Target] = []
    while (target := made.pick(100.5, tried)) is not None:
        tried.append(target)
    assert len(tried) == 3
    assert tried[-1] is bad


def test_the_resting_one_that_worked_as_the_last_resort_returns_gently() -> None:
    made = schedule(Pick.LEAST, 1, 1)
    bad = troubled(made, 8000)
    made.worked(bad, 101.0, 0.001)
    made.pick(101.0)
    assert states(made, 101.0) == [Use.RETURNING, Use.IN_USE]


def test_what_hangs_up_does_not_return_for_taking_a_connection() -> None:
    made = schedule(Pick.LEAST, 1, 1)
    made.pick(100.0)
    bad = next(iter(made.targets))
    for _ in range(ROW):
        made.worked(bad, 100.0, 0.001)
        made.ended(bad, 100.0, served=False)
    made.worked(bad, 100.0, 0.001)
    assert states(made, 100.1) == [Use.RESTING, Use.IN_USE]


def test_a_datagram_that_is_answered_ends_a_row() -> None:
    made = schedule(Pick.LEAST, 1, 1)
    made.pick(100.0)
    target = next(iter(made.targets))
    for _ in range(3 * ROW):
        made.failed(target, 100.0, Reason.REFUSED)
        made.answered(target)
    assert states(made, 100.0) == [Use.IN_USE, Use.IN_USE]


def test_people_see_how_each_backend_fares() -> None:
    made = schedule(Pick.LEAST, 1, 2, 0, 1)
    bad = troubled(made, 8000)
    suspect = next(one for one in made.targets if one.backend.port == 8003)
    suspect.active = 4
    made.worked(suspect, 100.0, 0.25)
    made.failed(suspect, 100.0, Reason.TIMEOUT)
    resting, used, draining, failed = made.tell(100.5)
    assert (resting.state, resting.seconds, resting.why) == (Use.RESTING, REST - 0.5, "5 in a row: refused")
    assert (resting.share, resting.rests, resting.tally) == (0.0, 1, bad.tally)
    assert (used.state, used.seconds, used.why, used.share, used.latency) == (Use.IN_USE, 0.0, None, 1.0, None)
    assert (draining.state, draining.share) == (Use.DRAINING, 0.0)
    assert (failed.state, failed.seconds, failed.why) == (Use.SUSPECT, SUSPICION - 0.5, "no answer in time")
    assert failed.latency == pytest.approx(0.25)
    assert failed.active == 4
    made.pick(100.0 + REST)
    back = made.tell(100.0 + REST)[0]
    assert (back.state, back.seconds, back.share) == (Use.RETURNING, RAMP, FIRST_SHARE)


def test_one_that_joins_begins_with_a_small_share_also_when_it_drained_before() -> None:
    made = schedule(Pick.RANDOM, 1, 0)
    made.pick(100.0)
    made.update(backends(1, 1, 1))
    assert states(made, 100.0) == [Use.IN_USE, Use.RETURNING, Use.RETURNING], "before the next flow"
    made.pick(101.0)
    assert [one.share for one in made.tell(101.0)] == [1.0, FIRST_SHARE, FIRST_SHARE]


def test_one_that_missed_its_turns_does_not_make_up_for_them() -> None:
    """Or all would come to it at once."""
    made = schedule(Pick.ROUND_ROBIN, 1, 1)
    bad = troubled(made, 8000)
    for _ in range(1000):
        assert made.pick(100.1) is not bad
    returned = 100.0 + REST + RAMP
    made.pick(100.0 + REST)
    picks = [made.pick(returned + 0.1) for _ in range(20)]
    assert 0 < picks.count(bad) <= 11


def test_a_thousand_backends_by_turns() -> None:
    made = schedule(Pick.ROUND_ROBIN, *[1 + i % 2 for i in range(1000)])
    counts = Counter(made.pick(0.0).backend.port for _ in range(3000))
    assert all(abs(counts[8000 + i] - (2 * (1 + i % 2))) <= 1 for i in range(1000))


@given(st.sampled_from(Pick), st.lists(st.integers(1, 1000), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_the_draw_stays_within_the_pool(rule, weights, rng) -> None:
    """Also where the dice fall at the very edge."""
    made = Schedule(rule, rng)
    made.update(backends(*weights))
    edge = [0.0, 1.0 - 2**-53]
    made._random = lambda: edge[rng.randrange(2)]
    for _ in range(20):
        made.pick(0.0)
        pool = made._pool
        one = pool.draw(made._random)
        assert pool.bounds is None or pool.draw_other(made._random, one) != one


class ScheduleMachine(RuleBasedStateMachine):
    """Backends come, go, fail, work and are slow in any order, under any rule."""

    @rule(pick=st.sampled_from(Pick), seed=st.integers(0, 99))
    @precondition(lambda self: not hasattr(self, "made"))
    def begin(self, pick, seed) -> None:
        self.made = Schedule(pick, Random(seed))
        self.made.notice = self.note
        self.now = 1000.0
        self.rests: dict[int, list[float]] = {}
        self.weights: tuple[int, ...] = ()

    def note(self, notice: Notice) -> None:
        assert notice.why
        if notice.seconds:
            assert REST <= notice.seconds <= LONGEST_REST

    begun = precondition(lambda self: hasattr(self, "made"))

    @begun
    @rule(weights=st.lists(st.integers(0, 3), max_size=6))
    def update(self, weights) -> None:
        self.weights = tuple(weights)
        self.made.update(backends(*weights))

    @begun
    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 5.0, 30.0, 70.0]))
    def wait(self, seconds) -> None:
        self.now += seconds

    @begun
    @rule(
        outcome=st.sampled_from([*Reason, "worked", "slow", "answered", "unserved", "served"]),
        times=st.integers(1, 6),
        which=st.integers(0, 5),
    )
    def happen(self, outcome, times, which) -> None:
        targets = list(self.made.targets)
        if which >= len(targets):
            return
        target = targets[which]
        for _ in range(times):
            match outcome:
                case "worked" | "slow":
                    self.made.worked(target, self.now, 0.001 if outcome == "worked" else 2.0)
                case "answered":
                    self.made.answered(target)
                case "unserved" | "served":
                    self.made.ended(target, self.now, served=outcome == "served")
                case reason:
                    self.made.failed(target, self.now, reason)

    @begun
    @rule()
    def flow(self) -> None:
        """Whatever happened: each open backend is tried once, those that rest last."""
        usable = {8000 + i for i, weight in enumerate(self.weights) if weight}
        tried: list[Target] = []
        while (target := self.made.pick(self.now, tried)) is not None:
            assert target not in tried
            assert target.backend.weight
            tried.append(target)
        assert {one.backend.port for one in tried} == usable
        resting = [one.backend.port for one in self.made.tell(self.now) if one.state is Use.RESTING]
        if not all(one.standing and one.standing.rank(self.now) == 2 for one in tried):
            calm = [one for one in tried if one.rank(self.now) < 2]
            assert tried[: len(calm)] == calm
        assert len(resting) <= len(usable) // 2

    @begun
    @invariant()
    def at_most_half_rest_of_those_that_were_picked_from(self) -> None:
        seen = self.made.tell(self.now)
        assert [one.backend for one in seen] == list(backends(*self.weights))
        for one in seen:
            assert 0.0 <= one.share <= 1.0
            assert one.seconds >= 0.0
            assert one.latency is None or one.latency >= 0.0
            assert (one.state is Use.DRAINING) == (not one.backend.weight)
            assert (one.why is not None) == (one.state in {Use.RESTING, Use.SUSPECT})


TestScheduleMachine = ScheduleMachine.TestCase
