"""A task: one running instance of something that can be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import quote

import attrs

from dcosnet.model.net import Address, Protocol
from dcosnet.model.provenance import Provenance


class TaskState(StrEnum):
    """What may be done with a task. Only a running one is given new work."""

    PREPARING = "preparing"
    RUNNING = "running"
    KILLING = "killing"
    TERMINAL = "terminal"


class Health(StrEnum):
    """The last word of a check; unknown where there is none."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Runtime(StrEnum):
    """Who made the task's network; decides which address a local client may use."""

    MESOS = "mesos"
    DOCKER = "docker"
    UNKNOWN = "unknown"


# What nearly all ids are made of; to see that takes a third of the time of quoting them.
_PLAIN = re.compile(r"[A-Za-z0-9_.~@:-]*")


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="@:")


@attrs.frozen(order=True)
class TaskId:
    """What a task is, whichever source tells of it."""

    framework: str
    task: str

    @property
    def key(self) -> str:
        """The key of this task in the store; a slash inside an id is quoted."""
        return f"task/{_quoted(self.framework)}/{_quoted(self.task)}"


@attrs.frozen
class Port:
    """
    A port of a task, in its container and, where mapped, on its agent.

    `vips` are the label values as they were written; `viplabels` reads them.
    """

    protocol: Protocol
    port: int | None = None
    host_port: int | None = None
    name: str = "default"
    vips: tuple[str, ...] = ()


@attrs.frozen
class Task:
    """
    One running instance, as its source tells it.

    `addresses` are the task's own, in its source's order; on the host's network
    they are the agent's. `observed_at` of the provenance takes no part in
    equality, so a poll that tells nothing new makes an equal task.
    """

    id: TaskId
    name: str
    framework: str
    agent: Address
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()
    state: TaskState = TaskState.RUNNING
    health: Health = Health.UNKNOWN
    weight: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    runtime: Runtime = Runtime.UNKNOWN
    labels: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    provenance: Provenance = attrs.field(default=Provenance("", ""))

    @property
    def serving_weight(self) -> int:
        """Its share of new flows: none unless it runs and is not known to be unhealthy."""
        if self.state is TaskState.RUNNING and self.health is not Health.UNHEALTHY:
            return self.weight
        return 0
