"""How much is this host's, and how much cannot be reached."""

from __future__ import annotations

import pytest

from dcosnet.model.member import Member, MemberState
from dcosnet.model.task import TaskState
from dcosnet.views.figures import figures

from .test_viptable import HOST_A, HOST_B, folded, snapshot, task

TASKS = (
    task("a1", HOST_A),
    task("a2", HOST_A, vips=("/web:80", "/other:80")),
    task("a3", HOST_A, state=TaskState.KILLING, vips=()),
    task("b1", HOST_B),
    task("b2", HOST_B, vips=("/lonely:80",)),
)


def told(*members: Member) -> dict[str, float]:
    snap = snapshot(*TASKS, members=members)
    families = figures(folded(snap), snap.tasks.values(), HOST_A)
    return {one.name.removeprefix("dcosnet_views_"): one.samples[0].value for one in families}


def test_what_runs_here_is_counted() -> None:
    """Two tasks of one VIP at one address and port are one backend, as the VIP has them."""
    found = told()
    assert {name: value for name, value in found.items() if name.startswith("local_")} == {
        "local_vips": 2,
        "local_backends": 2,
        "local_tasks": 3,
        "local_running_tasks": 2,
    }


@pytest.mark.parametrize(
    ("state", "backends", "vips"),
    [(MemberState.ALIVE, 0, 0), (MemberState.UNREACHABLE, 2, 1), (MemberState.DEAD, 2, 1), (MemberState.LEFT, 0, 0)],
)
def test_what_cannot_be_reached_is_counted(state: MemberState, backends: int, vips: int) -> None:
    """A VIP counts when nothing else is behind it; it is served all the same, as the verdict may be wrong."""
    found = told(Member("host-b", (HOST_B,), state))
    assert (found["unreachable_backends"], found["unreachable_vips"]) == (backends, vips)
