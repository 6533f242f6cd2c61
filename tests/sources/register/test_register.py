"""Registrations: acknowledged is saved, saved is restored, and what is not renewed ends."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from dcosnet.errors import DcosnetError
from dcosnet.io.files import write_atomically
from dcosnet.model.node import Node
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.task import TaskId
from dcosnet.sources.register.api import Registration, Registrations
from dcosnet.sources.register.leases import Lease, Leases, dump, load
from dcosnet.sources.register.service import RegisterSource
from dcosnet.sources.services import Reader, Service
from dcosnet.testing.contracts.source import TaskSourceContract

ADDRESS = ip_address("127.0.0.1")
READER = Reader("register", "n", ADDRESS)
BODY = {"group": "shop", "ports": [{"port": 8001, "vip": "/web:8000"}], "ttl": 30}


class Disk:
    """Saves at once, or when told; may be full."""

    def __init__(self) -> None:
        self.held: list[tuple[Any, Deferred[None]]] | None = None
        self.full = False
        self.saves = 0

    def off(self, _reactor: object, run: Any) -> Deferred[None]:
        if self.held is None:
            return maybeDeferred(run)
        self.held.append((run, Deferred()))
        return self.held[-1][1]

    def save(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.saves += 1
        write_atomically(path, data)


class RestlessError(AssertionError):
    """Somebody wakes up again and again at one moment."""


class BoundedClock(Clock):
    """Fails, where a plain clock would hang, when a lease that is over is woken for but not ended."""

    _at = -1.0
    _calls = 0

    def callLater(self, when: float, what: Any, *args: Any, **options: Any) -> Any:
        self._calls = self._calls + 1 if self.seconds() == self._at else 0
        self._at = self.seconds()
        if self._calls > 1000:
            raise RestlessError
        return super().callLater(when, what, *args, **options)


class RegisterRig:
    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.clock = clock or BoundedClock()
        self.disk = Disk()
        self.source = RegisterSource(self.clock, path, Node("n", ADDRESS), save=self.disk.save, off=self.disk.off)
        self.one = Registration(self.source, max_ttl=3600.0, limit=3)
        self.told: list[Any] = []

    def start(self) -> None:
        self.source.privilegedStartService()
        self.source.startService()

    def send(self, method: str, name: str, body: Any = b"", **query: str) -> list[RestReply]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = self.one.respond(
            RestRequest(method, f"/v1/register/{name}", {"name": name}, query, body=data, local=True)
        )
        replies: list[RestReply] = []
        if isinstance(reply, Deferred):
            reply.addCallback(replies.append)
        else:
            replies.append(reply)
        return replies

    def put(self, name: str, **more: Any) -> RestReply:
        (reply,) = self.send("PUT", name, BODY | more)
        return reply

    def listed(self) -> list[str]:
        return [one["name"] for one in Registrations(self.source).respond(RestRequest("GET", "/v1/register")).body]

    def appear(self, name: str) -> None:
        assert self.put(name).status == 200

    touch = appear

    def vanish(self, name: str) -> None:
        (reply,) = self.send("DELETE", name, group="shop")
        assert reply.status == 200


@pytest.fixture
def rig(tmp_path: Path) -> RegisterRig:
    rig = RegisterRig(tmp_path)
    rig.source.watch(rig.told.append)
    rig.start()
    return rig


class TestRegisterSource(TaskSourceContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> RegisterRig:
        return RegisterRig(tmp_path)


def test_a_registration_says_when_it_ends(rig: RegisterRig) -> None:
    """The client knows by when to renew."""
    rig.clock.advance(100)
    assert rig.put("web").body == {"name": "web", "group": "shop", "instance": "", "expires_at": 130.0}
    assert rig.listed() == ["web"]


def test_a_lease_that_is_not_renewed_ends(rig: RegisterRig) -> None:
    """A program that died cannot say so."""
    rig.put("web")
    rig.clock.advance(29)
    rig.put("web")
    rig.clock.advance(29)
    assert rig.listed() == ["web"]
    assert len(rig.told) == 2  # nothing, and web: the renewal told nothing
    rig.clock.advance(1)
    assert rig.listed() == []
    assert rig.told[-1].tasks == {}
    assert rig.clock.getDelayedCalls() == []


def test_what_was_acknowledged_is_there_after_a_restart(rig: RegisterRig, tmp_path: Path) -> None:
    """With the end that was promised, not a new one."""
    rig.put("web", instance="2", weight=3)
    rig.put("short", ttl=5)
    rig.clock.advance(10)
    again = RegisterRig(tmp_path, rig.clock)
    again.source.watch(again.told.append)
    again.start()
    assert again.source.leases == rig.source.leases
    assert [(task.name, task.weight) for task in again.told[0].tasks.values()] == [("web", 3)]
    again.clock.advance(20)
    assert again.listed() == []


def test_nothing_is_acknowledged_before_it_is_on_disk(rig: RegisterRig) -> None:
    """And those who come meanwhile share the next write."""
    rig.disk.held = []
    replies = [rig.send("PUT", name, BODY) for name in ("a", "b", "c")]
    assert replies == [[], [], []]
    assert rig.listed() == []
    for _ in range(2):
        run, done = rig.disk.held.pop()
        run()
        done.callback(None)
    assert [reply.status for (reply,) in replies] == [200, 200, 200]
    assert rig.listed() == ["a", "b", "c"]
    assert rig.disk.saves == 2


def test_what_the_disk_refuses_did_not_happen(rig: RegisterRig) -> None:
    """The client hears of it, and the old lease stands."""
    rig.put("web")
    rig.disk.full = True
    reply = rig.put("web", weight=5)
    assert reply.status == 503
    assert "No space left" in reply.body["reason"]
    assert [task.weight for task in rig.told[-1].tasks.values()] == [1]
    rig.disk.full = False
    assert rig.put("web", weight=5).status == 200


def test_a_broken_state_file_is_put_aside(tmp_path: Path) -> None:
    """It is not overwritten, and the daemon starts."""
    (tmp_path / "register").mkdir()
    (tmp_path / "register" / "leases.json").write_text('{"version":1,"leases":[{}]}')
    rig = RegisterRig(tmp_path)
    rig.start()
    (problem,) = rig.source.status().problems
    assert problem.reference.endswith("leases.broken")
    assert (tmp_path / "register" / "leases.broken").exists()


@pytest.mark.parametrize(("file", "reason"), [(None, "File exists"), ("leases.json", "Is a directory")])
def test_a_state_that_cannot_be_read_ends_the_start_in_one_line(tmp_path: Path, file: str | None, reason: str) -> None:
    """While it can still be told on the console; starting without it would lose what was acknowledged."""
    if file is None:
        (tmp_path / "register").write_text("a file in the place of the folder")
    else:
        (tmp_path / "register" / file).mkdir(parents=True)
    with pytest.raises(DcosnetError, match=rf"leases\.json: {reason}; move it away, or let this process"):
        RegisterRig(tmp_path).start()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (BODY | {"ttl": 0}, "ttl: 0 is out of range"),
        (BODY | {"ttl": 3601}, "out of range"),
        (BODY | {"ttl": "30"}, "is no number"),
        ({"group": "shop"}, "ttl: is missing"),
        ({"ttl": 5}, "group: is missing"),
        (BODY | {"name": "other"}, "the body names it 'other'"),
        (BODY | {"check": {"tcp": True}}, "unknown key 'check'"),
        (BODY | {"ports": [{"port": 70000}]}, "port 70000 does not exist"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(rig: RegisterRig, body: Any, reason: str) -> None:
    """Nothing of it is taken."""
    (reply,) = rig.send("PUT", "web", body)
    assert reply.status == 400
    assert reason in reply.body["reason"]
    assert reply.body["remedy"]
    assert rig.listed() == []


def test_what_is_not_registered_cannot_be_deleted(rig: RegisterRig) -> None:
    """Name, group and instance must all fit."""
    rig.put("web", instance="1")
    assert [reply.status for reply in rig.send("DELETE", "web", group="shop")] == [404]
    assert [reply.status for reply in rig.send("DELETE", "web")] == [400]
    assert [reply.status for reply in rig.send("DELETE", "web", group="shop", instance="1")] == [200]


def test_the_limit_is_told(rig: RegisterRig) -> None:
    """One more is refused; a renewal is not."""
    for name in ("a", "b", "c"):
        assert rig.put(name).status == 200
    assert rig.put("d").status == 507
    assert rig.put("a").status == 200


IDS = st.sampled_from([TaskId("register/g", f"{name}@n") for name in "abc"])
ENDS = st.integers(0, 20).map(float)


def of(ends: dict[TaskId, float]) -> Leases:
    return Leases({key: Lease(Service(key.task[0], "g", ADDRESS), end) for key, end in ends.items()})


ALL = st.dictionaries(IDS, ENDS).map(of)


@given(leases=ALL, identity=IDS, end=ENDS, now=ENDS, later=ENDS)
def test_the_laws_of_leases(leases: Leases, identity: TaskId, end: float, now: float, later: float) -> None:
    """Put, remove and expire against what a dictionary does."""
    lease = Lease(Service(identity.task[0], "g", ADDRESS), end)
    assert leases.put(identity, lease).put(identity, lease) == leases.put(identity, lease)
    assert leases.put(identity, lease).remove(identity) == leases.remove(identity)
    assert leases.expire(now).expire(later) == leases.expire(max(now, later))
    assert all(kept.expires_at > now for kept in leases.expire(now).by_id.values())
    due = leases.expire(now).due()
    assert due is None or due > now
    assert (leases.expire(now) is leases) == all(one.expires_at > now for one in leases.by_id.values())


@given(leases=ALL)
def test_leases_read_back(leases: Leases) -> None:
    """What is written is what is restored."""
    assert load(dump(leases), READER) == leases


@given(data=st.binary() | st.text().map(lambda text: json.dumps({"version": 1, "leases": [text]}).encode()))
def test_loading_raises_its_own_error_only(data: bytes) -> None:
    """A disk may give back anything."""
    with pytest.raises(ValueError, match=r"."):
        load(data, READER)
