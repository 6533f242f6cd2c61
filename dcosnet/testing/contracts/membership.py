"""
What every IMembership keeps: the suite to run on one of your own.

`class TestMine(membership_contract(make))`, where `make()` gives it and the name
of its node.
"""

from __future__ import annotations

from collections.abc import Callable

from zope.interface.verify import verifyObject

from dcosnet.interfaces import IMembership
from dcosnet.model.member import MemberState


def membership_contract(make: Callable[[], tuple[IMembership, str]]) -> type:
    """A class of tests for pytest."""

    class MembershipContract:
        def test_it_provides_the_interface(self) -> None:
            """Names and signatures are those of the interface."""
            verifyObject(IMembership, make()[0])

        def test_this_node_is_a_member_from_the_beginning(self) -> None:
            """Nobody waits for the network to know himself."""
            membership, name = make()
            member = membership.members.value[name]
            assert member.name == name
            assert member.state is MemberState.ALIVE
            assert member.addresses

        def test_members_are_keyed_by_their_names(self) -> None:
            """So that a changed key names a member."""
            members = make()[0].members.value
            assert all(name == member.name for name, member in members.items())

        def test_each_member_has_its_details(self) -> None:
            """Who looks at members finds all of them, and nobody else."""
            membership = make()[0]
            assert membership.details().keys() == membership.members.value.keys()

        def test_ages_are_not_negative(self) -> None:
            """They are lengths of time, whatever any clock says."""
            membership = make()[0]
            ages = [detail.age for detail in membership.details().values() if detail.age is not None]
            assert all(age >= 0 for age in (*ages, *(refusal.age for refusal in membership.refusals())))

    return MembershipContract
