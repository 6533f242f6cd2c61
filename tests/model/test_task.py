"""Tasks and what they are known by."""

from __future__ import annotations

import attrs
from hypothesis import given

from dcosnet.model.task import Health, Task, TaskId, TaskState
from dcosnet.testing.strategies import task_ids, tasks


@given(one=task_ids, other=task_ids)
def test_two_tasks_have_two_keys(one: TaskId, other: TaskId) -> None:
    """A slash inside an id may not make it another's key."""
    assert (one.key == other.key) == (one == other)
    assert one.key.count("/") == 2


@given(task=tasks)
def test_when_a_task_was_seen_does_not_make_it_another(task: Task) -> None:
    """Or every poll would rewrite every key."""
    later = attrs.evolve(task, provenance=attrs.evolve(task.provenance, observed_at=1e10))
    assert later == task
    assert hash(later) == hash(task)


@given(task=tasks)
def test_only_a_running_task_that_is_not_unhealthy_gets_new_work(task: Task) -> None:
    """The others drain."""
    serves = task.state is TaskState.RUNNING and task.health is not Health.UNHEALTHY
    assert task.serving_weight == (task.weight if serves else 0)
