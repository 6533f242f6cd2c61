"""
What every IDataPlane keeps: the suite to run on a plane of your own.

`class TestMine(data_plane_contract(rig, runs))`, where `rig()` is a context manager
that gives a `Rig` and leaves nothing behind, and `runs` makes a test of an async
function (`pytest_twisted.ensureDeferred`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import attrs
from zope.interface.verify import verifyObject

from dcosnet.interfaces import IDataPlane


@attrs.frozen
class Rig:
    """
    A plane with nothing in it, and what to lead it through.

    `states` are desired values that can be applied, one after the other;
    they should share keys and differ in values. `live` gives of a value all
    that traffic can reach: pairs of where it comes and where it goes.
    """

    plane: IDataPlane
    states: Sequence[Mapping[Any, Any]]
    live: Callable[[Mapping[Any, Any]], frozenset[Any]]


def data_plane_contract(make: Callable[[], AbstractContextManager[Rig]], runs: Callable[..., Any]) -> type:  # noqa: C901 - a suite, not a branch
    """A class of tests for pytest."""

    class DataPlaneContract:
        def test_it_provides_the_interface(self) -> None:
            """Names and signatures are those of the interface; abilities are a set of words."""
            with make() as rig:
                verifyObject(IDataPlane, rig.plane)
                assert all(isinstance(word, str) for word in rig.plane.able)

        def test_equal_values_need_no_plan(self) -> None:
            """plan(x, x) == ()."""
            with make() as rig:
                for state in rig.states:
                    assert rig.plane.plan(state, dict(state)) == ()

        @runs
        async def test_applying_a_plan_leads_to_what_is_desired(self) -> None:
            """From each state to the next, and to nothing at the end."""
            with make() as rig:
                for desired in (*rig.states, {}):
                    actual = await rig.plane.observe()
                    await rig.plane.apply(rig.plane.plan(desired, actual))
                    assert await rig.plane.observe() == desired

        @runs
        async def test_asked_for_some_keys_it_tells_of_these_alone(self) -> None:
            """And of such a part it plans and applies as of the whole."""
            with make() as rig:
                for desired in (*rig.states, {}):
                    for key in {**desired, **await rig.plane.observe()}:
                        actual = await rig.plane.observe({key})
                        assert actual.keys() <= {key}
                        part = {key: desired[key]} if key in desired else {}
                        await rig.plane.apply(rig.plane.plan(part, actual))
                        assert await rig.plane.observe({key}) == part
                    assert await rig.plane.observe() == desired

        @runs
        async def test_applying_a_plan_again_changes_nothing(self) -> None:
            """A round that was cut short may be repeated."""
            with make() as rig:
                for desired in (*rig.states, {}):
                    changes = rig.plane.plan(desired, await rig.plane.observe())
                    await rig.plane.apply(changes)
                    await rig.plane.apply(changes)
                    assert await rig.plane.observe() == desired

        @runs
        async def test_every_prefix_keeps_what_both_sides_reach(self) -> None:
            """Service is not interrupted in the midst of a change, wherever it stops."""
            with make() as rig:
                for before, desired in pairwise(({}, *rig.states)):
                    actual = await rig.plane.observe()
                    assert actual == before
                    kept = rig.live(actual) & rig.live(desired)
                    for change in rig.plane.plan(desired, actual):
                        await rig.plane.apply([change])
                        assert kept <= rig.live(await rig.plane.observe()), change

    return DataPlaneContract
