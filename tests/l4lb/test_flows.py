"""UDP flows by last use: idle ones end, and one too many takes the idlest's place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.flows import Flows


def test_a_flow_in_use_does_not_expire() -> None:
    flows: Flows[str, str] = Flows(idle=60.0, limit=10)
    flows.put("a", "A", 0.0)
    flows.put("b", "B", 1.0)
    assert flows.get("a", 50.0) == "A"
    assert flows.expire(61.0) == ["B"]
    assert flows.due() == 110.0
    assert flows.expire(110.0) == ["A"]
    assert flows.due() is None


def test_one_too_many_evicts_the_idlest() -> None:
    flows: Flows[str, str] = Flows(idle=60.0, limit=2)
    flows.put("a", "A", 0.0)
    flows.put("b", "B", 1.0)
    flows.get("a", 2.0)
    assert flows.put("c", "C", 3.0) == "B"
    assert flows.evicted == 1
    assert flows.get("b", 3.0) is None


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["use", "end", "wait"])), max_size=40))
def test_it_is_a_bounded_map_by_last_use(steps) -> None:
    """Against the plainest model: a dict of times."""
    flows: Flows[str, str] = Flows(idle=10.0, limit=3)
    model: dict[str, float] = {}
    now = 0.0
    for key, what in steps:
        now += 1.0
        if what == "wait":
            now += 4.0
            assert set(flows.expire(now)) == {one for one, used in model.items() if used + 10.0 <= now}
            model = {one: used for one, used in model.items() if used + 10.0 > now}
        elif what == "end":
            assert (flows.pop(key) is not None) == (model.pop(key, None) is not None)
        else:
            if flows.get(key, now) is None:
                evicted = flows.put(key, key, now)
                oldest = min(model, key=lambda one: model[one]) if len(model) >= 3 else None
                assert evicted == oldest
                model.pop(oldest, None)
            model[key] = now
        assert len(flows) == len(model)
        assert flows.due() == (min(model.values()) + 10.0 if model else None)
