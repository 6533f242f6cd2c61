"""
A Mesos cluster in memory: agents, frameworks and tasks, as documents of the v1 operator API.

Each change is told to those who watch, as the event that a leading master would
send, and kept in `log`; `state()` is the snapshot that a master would give now.
So the same history can be had as a snapshot and as events, and compared. What
is kept of a task is one small value, documents are made when somebody asks:
50 000 tasks are built in well under a second. Serving it is `fake_mesos`.

    cluster = FakeCluster()
    agent = cluster.add_agent("10.0.0.5")
    marathon = cluster.add_framework("marathon")
    web = cluster.add_task("web", marathon, agent, ports=[ClusterPort(8080, host_port=31000, vips=["/web:80"])])
    cluster.update_task(web, healthy=False)
    cluster.update_task(web, state="TASK_KILLED")
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

Document = dict[str, Any]
Event = Document

TERMINAL = frozenset({
    "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR", "TASK_DROPPED", "TASK_GONE",
    "TASK_GONE_BY_OPERATOR",
})  # fmt: skip
_COMPLETED_KEPT = 100
_EPOCH = 1_520_884_800.0  # each status is a second younger than the one before


@attrs.frozen
class ClusterPort:
    """
    A port of a task: in its container and, where mapped, on its agent.

    `labels` are further labels of the port, such as a network-scope that is wrong.
    """

    port: int
    host_port: int | None = None
    protocol: str = "tcp"
    name: str = ""
    vips: Sequence[str] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class ClusterAgent:
    """An agent as the master knows it; `recovered` until it registers again after a failover."""

    id: str
    hostname: str
    pid: str
    recovered: bool = False


@attrs.frozen
class ClusterFramework:
    """A framework as the master knows it; `known` once it, or an agent that runs tasks of it, has registered."""

    id: str
    name: str
    hostname: str = ""
    pid: str = ""
    active: bool = True
    known: bool = True


@attrs.frozen
class ClusterTask:
    """
    A task; `addresses` empty is a status without network_infos, `healthy` None one without health.

    `container` None leaves the key out; `host` is a task on the agent's network,
    whose ports, and whose address unless one is given, are the agent's.
    """

    id: str
    name: str
    framework: str
    agent: str
    state: str = "TASK_RUNNING"
    addresses: Sequence[str] = ()
    ports: Sequence[ClusterPort] = ()
    healthy: bool | None = None
    checked: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict)
    discovery: str | None = None
    container: Literal["MESOS", "DOCKER"] | None = "MESOS"
    host: bool = False
    changed_at: float = _EPOCH

    @property
    def key(self) -> tuple[str, str]:
        """What the cluster knows it by; task ids are unique in a framework only."""
        return self.framework, self.id


class FakeCluster:
    """
    What a master knows.

    Methods that add give the id, or for a task the (framework id, task id). Those
    that change tell the events at once, in the order in which a master would.
    With `keep_log` False, `log` stays empty: for clusters where only the last
    state matters.
    """

    def __init__(self, identity: str = "5ad0f2fd-7a6c-4f0c-9e0a-2f7c4d3b1e00", *, keep_log: bool = True) -> None:
        self.id = identity
        self.agents: dict[str, ClusterAgent] = {}
        self.frameworks: dict[str, ClusterFramework] = {}
        self.tasks: dict[tuple[str, str], ClusterTask] = {}
        self.log: list[Event] = []
        self._completed: deque[ClusterTask] = deque(maxlen=_COMPLETED_KEPT)
        self._keep_log = keep_log
        self._watchers: list[Callable[[Event], None]] = []
        self._made = {"agent": 0, "framework": 0, "task": 0}
        self._now = _EPOCH

    def watch(self, receive: Callable[[Event], None]) -> Callable[[], None]:
        """Call `receive(event)` for each event from now on; returns what ends it."""
        self._watchers.append(receive)
        return lambda: self._watchers.remove(receive)

    # --- what happens -------------------------------------------------------

    def add_agent(self, hostname: str, *, pid: str | None = None) -> str:
        """An agent registers; its pid is that of an agent on this host unless it is given."""
        identity = f"{self.id}-S{self._next('agent')}"
        agent = ClusterAgent(identity, hostname, f"slave(1)@{hostname}:5051" if pid is None else pid)
        self.agents[identity] = agent
        self._tell("AGENT_ADDED", {"agent": _agent(agent)})
        return identity

    def remove_agent(self, agent: str, state: str = "TASK_LOST") -> None:
        """An agent is gone, and each of its tasks goes with it, into this terminal state, before."""
        for task in [each for each in self.tasks.values() if each.agent == agent]:
            self.update_task(task.key, state=state)
        self.forget_agent(agent)

    def forget_agent(self, agent: str) -> None:
        """An agent is gone and nothing is told of its tasks, which stay: masters did that."""
        del self.agents[agent]
        self._tell("AGENT_REMOVED", {"agent_id": {"value": agent}})

    def add_framework(self, name: str, *, hostname: str = "", pid: str = "") -> str:
        """A scheduler registers; without a pid it is one that speaks HTTP."""
        framework = ClusterFramework(f"{self.id}-{self._next('framework'):04}", name, hostname, pid)
        self.frameworks[framework.id] = framework
        self._tell("FRAMEWORK_ADDED", {"framework": _framework(framework)})
        return framework.id

    def update_framework(self, framework: str, **changes: Any) -> None:
        """A framework registers again: with another name, host name, pid or as inactive."""
        changed = self.frameworks[framework] = attrs.evolve(self.frameworks[framework], **changes, known=True)
        self._tell("FRAMEWORK_UPDATED", {"framework": _framework(changed)})

    def remove_framework(self, framework: str) -> None:
        """A framework is torn down; its tasks stay until each of them ends."""
        removed = self.frameworks.pop(framework)
        self._tell("FRAMEWORK_REMOVED", {"framework_info": _framework(removed)["framework_info"]})

    def add_task(
        self, name: str, framework: str, agent: str, *, identity: str | None = None, **more: Any
    ) -> tuple[str, str]:
        """
        A task is launched and comes into its state; `more` are fields of ClusterTask.

        A master adds it while it is staging and then tells how it gets on. The
        discovery name is the task's own name unless it is given.
        """
        fields = {"discovery": name, "state": "TASK_RUNNING", "changed_at": self._tick(), **more}
        if fields.get("host"):
            fields.setdefault("addresses", (self.agents[agent].hostname,))
        number = self._next("task")
        task = ClusterTask(identity or f"{name}.{number:08x}", name, framework, agent, **fields)
        self.tasks[task.key] = task
        if self._heard:
            self._tell("TASK_ADDED", {"task": self._task(attrs.evolve(task, state="TASK_STAGING"), statuses=False)})
            if task.state != "TASK_STAGING":
                self._tell_update(task)
        return task.key

    def update_task(self, key: tuple[str, str], **changes: Any) -> None:
        """
        A status update: another `state`, `addresses` or `healthy`.

        A task in a terminal state is not in the snapshot any more, but among the completed.
        """
        unknown = changes.keys() - {"state", "addresses", "healthy"}
        assert not unknown, f"a status does not tell of {sorted(unknown)}"
        task = attrs.evolve(self.tasks[key], changed_at=self._tick(), **changes)
        if task.state in TERMINAL:
            del self.tasks[key]
            self._completed.append(task)
        else:
            self.tasks[key] = task
        if self._heard:
            self._tell_update(task)

    def fail_over(self) -> None:
        """
        Another master leads: it has read the agents from its registry and knows nothing else.

        Nothing is told: streams of the old master end. Agents come back with `register_again`.
        """
        self.agents = {key: attrs.evolve(agent, recovered=True) for key, agent in self.agents.items()}
        self.frameworks = {key: attrs.evolve(each, known=False) for key, each in self.frameworks.items()}

    def register_again(self, agent: str) -> None:
        """A recovered agent registers: it is added, then what it brings, first the frameworks and then the tasks."""
        changed = self.agents[agent] = attrs.evolve(self.agents[agent], recovered=False)
        self._tell("AGENT_ADDED", {"agent": _agent(changed)})
        tasks = [task for task in self.tasks.values() if task.agent == agent]
        for identity in dict.fromkeys(task.framework for task in tasks):
            framework = self.frameworks.get(identity)
            if framework is not None and not framework.known:
                known = self.frameworks[identity] = attrs.evolve(framework, known=True)
                self._tell("FRAMEWORK_ADDED", {"framework": _framework(known)})
        for task in tasks:
            self._tell("TASK_ADDED", {"task": self._task(task)})

    # --- documents ----------------------------------------------------------

    def get_tasks(self) -> Document:
        """`get_tasks` of a master."""
        hidden = {agent.id for agent in self.agents.values() if agent.recovered}
        return {
            "tasks": [self._task(task) for task in self.tasks.values() if task.agent not in hidden],
            "completed_tasks": [self._task(task) for task in self._completed],
        }

    def get_agents(self) -> Document:
        """`get_agents` of a master."""
        return {
            "agents": [_agent(agent) for agent in self.agents.values() if not agent.recovered],
            "recovered_agents": [_agent_info(agent) for agent in self.agents.values() if agent.recovered],
        }

    def get_frameworks(self) -> Document:
        """`get_frameworks` of a master."""
        return {"frameworks": [_framework(each) for each in self.frameworks.values() if each.known]}

    def get_state(self) -> Document:
        """`get_state` of a master: what SUBSCRIBED brings and what GET_STATE answers."""
        return {
            "get_tasks": self.get_tasks(),
            "get_executors": {},
            "get_frameworks": self.get_frameworks(),
            "get_agents": self.get_agents(),
        }

    def get_agent_state(self, agent: str) -> Document:
        """`get_state` of one agent, which knows its own tasks and their frameworks only."""
        tasks = [task for task in self.tasks.values() if task.agent == agent]
        frameworks = [self.frameworks[each] for each in {task.framework for task in tasks} if each in self.frameworks]
        return {
            "get_tasks": {
                "launched_tasks": [self._task(task) for task in tasks],
                "completed_tasks": [self._task(task) for task in self._completed if task.agent == agent],
            },
            "get_executors": {},
            "get_frameworks": {"frameworks": [_framework(each) for each in frameworks]},
        }

    def get_agent_info(self, agent: str) -> Document:
        """`agent_info` of one agent: what GET_AGENT answers."""
        return _agent_info(self.agents[agent])

    def subscribed(self, heartbeat: float = 15.0) -> Event:
        """The first event of a stream."""
        return {
            "type": "SUBSCRIBED",
            "subscribed": {"get_state": self.get_state(), "heartbeat_interval_seconds": heartbeat},
        }

    def master_state(self, leader: str) -> Document:
        """The document of a master's `/state`, with its own names for things; `leader` is "address:port"."""
        tasks: dict[str, list[Document]] = {}
        for task in self.tasks.values():
            tasks.setdefault(task.framework, []).append(self._state_task(task))
        frameworks = [
            {
                "id": each.id,
                "name": each.name,
                "pid": each.pid,
                "hostname": each.hostname,
                "active": each.active,
                "tasks": tasks.get(each.id, []),
                "completed_tasks": [],
            }
            for each in self.frameworks.values()
            if each.known
        ]
        slaves = [
            {"id": each.id, "hostname": each.hostname, "pid": each.pid, "active": True}
            for each in self.agents.values()
            if not each.recovered
        ]
        return {
            "id": self.id,
            "pid": f"master@{leader}",
            "leader": f"master@{leader}",
            "slaves": slaves,
            "frameworks": frameworks,
            "completed_frameworks": [],
        }

    # ------------------------------------------------------------------------

    @property
    def _heard(self) -> bool:
        return self._keep_log or bool(self._watchers)

    def _next(self, kind: str) -> int:
        number = self._made[kind]
        self._made[kind] += 1
        return number

    def _tick(self) -> float:
        self._now += 1.0
        return self._now

    def _tell(self, kind: str, content: Document) -> None:
        event = {"type": kind, kind.lower(): content}
        if self._keep_log:
            self.log.append(event)
        for receive in tuple(self._watchers):
            receive(event)

    def _tell_update(self, task: ClusterTask) -> None:
        status = _status(task)
        self._tell(
            "TASK_UPDATED", {"framework_id": {"value": task.framework}, "status": status, "state": status["state"]}
        )

    def _task(self, task: ClusterTask, *, statuses: bool = True) -> Document:
        document: Document = {
            "name": task.name,
            "task_id": {"value": task.id},
            "framework_id": {"value": task.framework},
            "agent_id": {"value": task.agent},
            "state": task.state,
        }
        if statuses:
            document["statuses"] = [_status(task)]
        host_ports = [port.host_port or port.port for port in task.ports if port.host_port or task.host]
        if host_ports:
            ranges = [{"begin": port, "end": port} for port in sorted(host_ports)]
            document["resources"] = [{"name": "ports", "type": "RANGES", "ranges": {"range": ranges}}]
        if task.labels:
            document["labels"] = _labels(task.labels)
        if task.discovery is not None:
            ports = {"ports": [_port(port, task.host) for port in task.ports]} if task.ports else {}
            document["discovery"] = {"visibility": "FRAMEWORK", "name": task.discovery, "ports": ports}
        if task.container is not None:
            document["container"] = _container(task)
        if task.checked:
            document["health_check"] = {"type": "TCP", "tcp": {"port": 80}}
        return document

    def _state_task(self, task: ClusterTask) -> Document:
        document = self._task(task)
        ports = [port.host_port or port.port for port in task.ports if port.host_port or task.host]
        return {
            "id": task.id,
            "name": task.name,
            "framework_id": task.framework,
            "slave_id": task.agent,
            "state": task.state,
            "resources": {"ports": f"[{', '.join(f'{port}-{port}' for port in ports)}]"} if ports else {},
            "statuses": document["statuses"],
            "labels": [{"key": key, "value": value} for key, value in task.labels.items()],
            **{key: document[key] for key in ("discovery", "container") if key in document},
        }


def _labels(labels: Mapping[str, str]) -> Document:
    return {"labels": [{"key": key, "value": value} for key, value in labels.items()]}


def _port(port: ClusterPort, host: bool) -> Document:
    # Marathon tells the port of the agent, with scope host, where one is mapped.
    labels = {f"VIP_{index}": vip for index, vip in enumerate(port.vips)}
    labels["network-scope"] = "host" if host or port.host_port else "container"
    labels |= port.labels
    document: Document = {
        "number": port.host_port or port.port,
        "protocol": port.protocol,
        "labels": _labels(labels),
    }
    return {**document, "name": port.name} if port.name else document


def _container(task: ClusterTask) -> Document:
    mappings = [
        {"container_port": port.port, "host_port": port.host_port, "protocol": port.protocol}
        for port in task.ports
        if port.host_port
    ]
    if task.container == "DOCKER":
        network = "HOST" if task.host else "BRIDGE" if mappings else "USER"
        docker: Document = {"image": "example", "network": network}
        return {"type": "DOCKER", "docker": {**docker, "port_mappings": mappings} if mappings else docker}
    if task.host:
        return {"type": "MESOS"}
    info: Document = {"ip_addresses": [{"protocol": "IPv4"}], "name": "mesos-bridge" if mappings else "dcos"}
    return {"type": "MESOS", "network_infos": [{**info, "port_mappings": mappings} if mappings else info]}


def _addresses(addresses: Iterable[str]) -> list[Document]:
    return [{"protocol": "IPv6" if ":" in each else "IPv4", "ip_address": each} for each in addresses]


def _status(task: ClusterTask) -> Document:
    status: Document = {
        "task_id": {"value": task.id},
        "state": task.state,
        "source": "SOURCE_EXECUTOR",
        "agent_id": {"value": task.agent},
        "timestamp": task.changed_at,
    }
    if task.healthy is not None:
        status["healthy"] = task.healthy
    if task.addresses:
        status["container_status"] = {"network_infos": [{"ip_addresses": _addresses(task.addresses)}]}
    return status


def _agent_info(agent: ClusterAgent) -> Document:
    return {"hostname": agent.hostname, "port": 5051, "id": {"value": agent.id}}


def _agent(agent: ClusterAgent) -> Document:
    return {"agent_info": _agent_info(agent), "active": True, "version": "1.11.0", "pid": agent.pid}


def _framework(framework: ClusterFramework) -> Document:
    info = {"id": {"value": framework.id}, "name": framework.name, "user": "root", "hostname": framework.hostname}
    document = {"framework_info": info, "active": framework.active, "connected": framework.active, "recovered": False}
    return {**document, "pid": framework.pid} if framework.pid else document
