"""What was counted for a VIP is not lost while the VIP is there."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.ledger import Ledger
from dcosnet.l4lb.schedule import Pick, Schedule
from dcosnet.l4lb.tally import Reason

from .rig import backend, listener

HOMES = [listener(port) for port in (1, 2, 3)]
VIPS = ("a", "b")


def schedule(*ports: int) -> Schedule:
    made = Schedule(Pick.ROUND_ROBIN, Random(1))
    made.update([backend(port) for port in ports])
    made.pick(0.0)  # its targets are made for the first flow
    return made


def numbers(ledger: Ledger, vip: str) -> tuple[int, ...]:
    total, _active = ledger[vip].sum({})
    return total.flows, sum(total.failures.values()), total.to_backend, total.to_client


steps = st.one_of(
    st.tuples(st.just("serve"), st.sampled_from(HOMES), st.sampled_from(VIPS)),
    st.tuples(st.just("close"), st.sampled_from(HOMES), st.none()),
    st.tuples(st.just("backends"), st.sampled_from(HOMES), st.lists(st.integers(1, 3), max_size=3)),
    st.tuples(st.just("begin"), st.sampled_from(HOMES), st.none()),
    st.tuples(st.just("refuse"), st.sampled_from(HOMES), st.none()),
    st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 100)),
)


@given(st.lists(steps, max_size=40))
def test_no_sum_of_a_vip_goes_backwards_while_it_is_served(run) -> None:
    """Whatever comes and goes: backends, listeners, flows of those that have gone."""
    ledger = Ledger()
    serving: dict[object, tuple[str, Schedule]] = {}
    flowing = []
    before: dict[str, tuple[int, ...]] = {}
    for what, which, value in run:
        if what == "serve" and (which not in serving or serving[which][0] != value):
            serving[which] = value, schedule(1, 2)
            ledger.opened(which, *serving[which])
        elif what == "close" and which in serving:
            del serving[which]
            ledger.closed(which)
        elif what == "backends" and which in serving:
            serving[which][1].update([backend(port) for port in set(value)])
        elif what in ("begin", "refuse") and which in serving:
            target = serving[which][1].pick(0.0)
            if target is None:
                continue
            if what == "refuse":
                serving[which][1].failed(target, 0.0, Reason.REFUSED)
                continue
            target.active += 1
            serving[which][1].worked(target, 0.0, 0.001)
            flowing.append(target)
        elif what == "end" and which < len(flowing):
            target = flowing.pop(which)
            target.tally.to_client += value
            target.active -= 1
        served = {vip for vip, _ in serving.values()}
        assert set(ledger.vips) == served
        now = {vip: numbers(ledger, vip) for vip in served}
        for vip in served & before.keys():
            assert all(old <= new for old, new in zip(before[vip], now[vip], strict=True)), (before, now)
        before = now


def test_flows_of_listeners_that_have_gone_are_in_flight_yet() -> None:
    """And what their connections have moved so far is in the sum."""
    ledger = Ledger()
    first, second = schedule(1), schedule(2)
    ledger.opened(HOMES[0], "a", first)
    ledger.opened(HOMES[1], "a", second)
    target = first.pick(0.0)
    target.active += 1
    first.worked(target, 0.0, 0.001)
    ledger.closed(HOMES[0])
    total, active = ledger["a"].sum({target: (5, 6)})
    assert (total.flows, total.to_backend, total.to_client, active) == (1, 5, 6, 1)


def test_a_vip_that_was_gone_begins_anew() -> None:
    ledger = Ledger()
    made = schedule(1)
    ledger.opened(HOMES[0], "a", made)
    made.worked(made.pick(0.0), 0.0, 0.001)
    ledger.closed(HOMES[0])
    assert "a" not in ledger
    ledger.opened(HOMES[0], "a", schedule(1))
    assert numbers(ledger, "a") == (0, 0, 0, 0)


def test_a_listener_that_changes_hands_takes_nothing_along() -> None:
    """What it counted was for the VIP that had it."""
    ledger = Ledger()
    made = schedule(1)
    ledger.opened(HOMES[0], "a", made)
    ledger.opened(HOMES[1], "a", schedule(1))
    made.worked(made.pick(0.0), 0.0, 0.001)
    ledger.opened(HOMES[0], "b", schedule(1))
    assert numbers(ledger, "a")[0] == 1
    assert numbers(ledger, "b")[0] == 0
