"""The schedule of checks: when they run, and what their answers make of health."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.net import Endpoint
from dcosnet.model.task import Health, TaskId
from dcosnet.sources.files.checks import Checks, Outcome, Probe, Result
from dcosnet.sources.services import Check

WEB, DB = TaskId("files/g", "web@n"), TaskId("files/g", "db@n")


def check(port: int = 80, interval: float = 5.0) -> Check:
    return Check("tcp", Endpoint(ip_address("127.0.0.1"), port), "", interval)


def started(checks: dict[TaskId, Check], at_once: int = 64) -> tuple[Checks, list[Probe]]:
    core = Checks(lambda: 0.5, at_once)
    core.want(checks, 0.0)
    return core, core.take_output()


def answer(core: Checks, probe: Probe, result: Result, now: float) -> Health:
    core.feed(Outcome(probe.number, result), now)
    return core.health(probe.task)


def test_a_check_begins_at_once_and_unhealthy() -> None:
    """No traffic until it answered; a task without a check is unknown."""
    core, (probe,) = started({WEB: check()})
    assert probe.task == WEB
    assert core.health(WEB) is Health.UNHEALTHY
    assert core.health(DB) is Health.UNKNOWN
    assert core.due() is None


def test_one_good_answer_raises_and_two_bad_ones_lower() -> None:
    """And only the turns are told."""
    core, (probe,) = started({WEB: check()})
    seen = []
    for number, result in enumerate([Result.GOOD, Result.REFUSED, Result.GOOD, Result.TIMEOUT, Result.STATUS]):
        seen.append(answer(core, probe, result, 5.0 * number))
        core.tick(5.0 * number + 5)
        (probe,) = core.take_output()
    assert seen == [Health.HEALTHY] * 4 + [Health.UNHEALTHY]
    assert [event.health for event in core.take_events()] == [Health.HEALTHY, Health.UNHEALTHY]
    assert core.results[Result.GOOD] == 2


def test_a_check_that_did_not_change_goes_on() -> None:
    """A touched file makes no probe and takes no health away."""
    core, (probe,) = started({WEB: check()})
    answer(core, probe, Result.GOOD, 1.0)
    due = core.due()
    core.want({WEB: check(), DB: check(81)}, 2.0)
    assert [one.task for one in core.take_output()] == [DB]
    assert core.health(WEB) is Health.HEALTHY
    assert core.due() == due


def test_another_timing_keeps_the_health_and_another_subject_does_not() -> None:
    """What was seen of one port says nothing of the next."""
    core, (probe,) = started({WEB: check()})
    answer(core, probe, Result.GOOD, 1.0)
    core.want({WEB: check(interval=9.0)}, 2.0)
    assert core.health(WEB) is Health.HEALTHY
    core.want({WEB: check(port=81)}, 3.0)
    assert core.health(WEB) is Health.UNHEALTHY


def test_an_answer_to_a_check_that_is_gone_is_nobodys() -> None:
    """It comes late, for a port that is not asked any more."""
    core, (old,) = started({WEB: check()})
    core.want({WEB: check(port=81)}, 1.0)
    assert answer(core, old, Result.GOOD, 2.0) is Health.UNHEALTHY
    core.want({}, 3.0)
    assert core.health(WEB) is Health.UNKNOWN
    assert core.due() is None


def test_no_more_probes_at_once_than_allowed() -> None:
    """The rest waits its turn and gets it."""
    tasks = {TaskId("files/g", f"{number}@n"): check(number + 1) for number in range(10)}
    core, under_way = started(tasks, at_once=3)
    asked = list(under_way)
    while under_way:
        assert len(under_way) <= 3
        answer(core, under_way.pop(0), Result.GOOD, 1.0)
        more = core.take_output()
        asked += more
        under_way += more
    assert {probe.task for probe in asked} == set(tasks)
    assert core.due() == 5.0


STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from([WEB, DB]), st.builds(check, st.integers(1, 2), st.sampled_from([1.0, 5.0]))),
        st.sampled_from(Result),
        st.floats(0, 10),
    )
)


@given(steps=STEPS, at_once=st.integers(1, 2))
def test_whatever_happens_no_check_is_forgotten_or_doubled(steps: list[object], at_once: int) -> None:
    """Each wanted check is under way or due, and health is bounded by what was wanted."""
    core, now, wanted = Checks(lambda: 0.5, at_once), 0.0, dict[TaskId, Check]()
    under_way: list[Probe] = []
    for step in steps:
        match step:
            case Result():
                if under_way:
                    core.feed(Outcome(under_way.pop(0).number, step), now)
            case float():
                now += step
                core.tick(now)
            case dict():
                wanted = step
                core.want(step, now)
        under_way += core.take_output()
        assert len(under_way) <= at_once
        due = core.due()
        assert due is None or due > now
        current = {(probe.task, probe.check) for probe in under_way}
        if wanted and len(under_way) < at_once:
            assert due is not None or current >= set(wanted.items())
