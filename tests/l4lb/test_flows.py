"""UDP flows by last use: idle ones end, and one too many takes the idlest's place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.flows import Flows


class Flow:
    def __init__(self, name: str) -> None:
        self.name = name
        self.used = 0.0

    def __repr__(self) -> str:
        return self.name


def test_a_flow_in_use_does_not_expire() -> None:
    flows: Flows[Flow] = Flows(idle=60.0, limit=10)
    a, b = Flow("a"), Flow("b")
    flows.add(a, 0.0)
    flows.add(b, 1.0)
    flows.touch(a, 50.0)
    assert flows.expire(61.0) == [b]
    assert flows.due() == 110.0
    assert flows.expire(110.0) == [a]
    assert flows.due() is None


def test_one_too_many_evicts_the_idlest() -> None:
    flows: Flows[Flow] = Flows(idle=60.0, limit=2)
    a, b = Flow("a"), Flow("b")
    assert flows.add(a, 0.0) is None
    assert flows.add(b, 1.0) is None
    flows.touch(a, 2.0)
    assert flows.add(Flow("c"), 3.0) is b
    assert flows.evicted == 1
    assert len(flows) == 2


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["use", "end", "wait"])), max_size=40))
def test_it_is_a_bounded_set_by_last_use(steps) -> None:
    """Against the plainest model: a dict of times."""
    flows: Flows[Flow] = Flows(idle=10.0, limit=3)
    every = {name: Flow(name) for name in "abcde"}
    model: dict[Flow, float] = {}
    now = 0.0
    for name, what in steps:
        flow = every[name]
        now += 1.0
        if what == "wait":
            now += 4.0
            assert set(flows.expire(now)) == {one for one, used in model.items() if used + 10.0 <= now}
            model = {one: used for one, used in model.items() if used + 10.0 > now}
        elif what == "end":
            flows.discard(flow)
            model.pop(flow, None)
        elif flow in model:
            flows.touch(flow, now)
            model[flow] = now
        else:
            oldest = min(model, key=lambda one: model[one]) if len(model) >= 3 else None
            assert flows.add(flow, now) is oldest
            model.pop(oldest, None)
            model[flow] = now
        assert len(flows) == len(model)
        assert flows.due() == (min(model.values()) + 10.0 if model else None)
    assert set(flows.drain()) == set(model)
    assert len(flows) == 0


def test_with_a_lower_limit_the_idlest_make_room_at_once() -> None:
    flows: Flows[Flow] = Flows(idle=60.0, limit=3)
    a, b, c = Flow("a"), Flow("b"), Flow("c")
    for at, flow in enumerate((a, b, c)):
        flows.add(flow, float(at))
    flows.touch(a, 3.0)
    flows.limit = 1
    assert flows.shrink() == [b, c]
    assert (len(flows), flows.evicted) == (1, 2)
    flows.limit = 5
    assert flows.shrink() == []
