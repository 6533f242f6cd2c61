"""Where the masters are: a file with a list, and an ensemble seen through a client that the test moves."""

from __future__ import annotations

import json

import pytest
from kazoo.exceptions import NoAuthError, NoNodeError, SessionExpiredError
from twisted.internet import defer
from twisted.internet.task import Clock

from dcosnet.sources.mesos.leader import LOOK, Known, MasterList, Masters, ZooKeeperWatch, read_list
from dcosnet.sources.mesos.masterinfo import ZooKeeper


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b'["10.0.0.1", "10.0.0.2"]', ("http://10.0.0.1:5050", "http://10.0.0.2:5050")),
        (b'["master-1:5060", "fd01::1", "[fd01::2]:1"]', ("http://master-1:5060", "http://[fd01::1]:5050", "http://[fd01::2]:1")),
        (b'["https://10.0.0.1:5050/"]', ("https://10.0.0.1:5050",)),
    ],
)  # fmt: skip
def test_a_list_may_hold_addresses_ports_and_urls(data, wanted):
    assert read_list(data, "http") == wanted


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[5]", b'["http://a/path"]', b'["a:99999"]', b"<html>"])
def test_what_names_no_master_is_refused(data):
    with pytest.raises(ValueError):
        read_list(data, "http")


def now(_reactor, run):
    """Run at once what would run in a thread."""
    return defer.execute(run)


def test_a_broken_list_keeps_what_it_said(clock, tmp_path):
    """And says so; a corrected one counts from the next look."""
    path = tmp_path / "masters.json"
    path.write_text('["10.0.0.1"]')
    watch, changes = MasterList(clock, path, "http", off=now), []
    watch.start(lambda: changes.append(watch.known))
    first = Known(("http://10.0.0.1:5050",))
    assert changes == [first]
    path.write_text("[")
    clock.advance(LOOK)
    assert watch.known == first
    assert "stays" in watch.problems[0].reason
    path.unlink()
    clock.advance(LOOK)
    assert (watch.known, len(watch.problems)) == (first, 1)
    assert watch.heard_at is not None
    path.write_text('["10.0.0.2"]')
    clock.advance(LOOK)
    assert (changes[-1], watch.problems, watch.heard_at) == (Known(("http://10.0.0.2:5050",)), (), None)
    watch.stop()
    assert clock.getDelayedCalls() == []


def test_a_mistake_in_taking_a_list_costs_one_look(clock, tmp_path):
    """It shows, and the file is read again."""
    path = tmp_path / "masters.json"
    path.write_text('["10.0.0.1"]')
    watch, faults = MasterList(clock, path, "http", off=now), [1, 1]
    watch.start(lambda: faults and 1 // (faults.pop() - 1))
    assert "mistake of ours" in watch.problems[0].reason
    path.write_text('["10.0.0.2"]')
    clock.advance(LOOK)
    path.write_text('["10.0.0.3"]')
    clock.advance(LOOK)
    assert (watch.known, watch.problems) == (Known(("http://10.0.0.3:5050",)), ())
    watch.stop()
    assert clock.getDelayedCalls() == []


class Threads:
    """The client's threads, run when the test says."""

    class timeout_exception(Exception):  # noqa: N801, N818 - kazoo calls it so
        pass

    def __init__(self):
        self.waiting = []

    def spawn(self, run, *arguments):
        self.waiting.append((run, arguments))

    def run(self):
        while self.waiting:
            run, arguments = self.waiting.pop(0)
            run(*arguments)


class Client:
    """What is used of a kazoo client, on nodes in memory."""

    def __init__(self):
        self.handler = Threads()
        self.nodes = None
        self.error = None
        self.listener = None
        self.watches = []

    def add_listener(self, listener):
        self.listener = listener

    def start_async(self):
        pass

    def exists(self, _path, watch):
        if self.error is not None:
            raise self.error
        self.watches.append(watch)
        return None if self.nodes is None else object()

    def get_children(self, _path, watch):
        self.watches.append(watch)
        return [*(self.nodes or ()), "json.info_0000000099", "log_replicas"]

    def get(self, path):
        name = path.rpartition("/")[2]
        if name not in self.nodes:
            raise NoNodeError
        return self.nodes[name], None

    def stop(self):
        pass

    close = stop


class Event:
    path = "/mesos"


class ThreadClock(Clock):
    """A clock whose calls from threads run at once."""

    def callFromThread(self, run, *arguments):
        run(*arguments)


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def watch(client):
    made = ZooKeeperWatch(ThreadClock(), ZooKeeper("h1:2181", "/mesos"), "http", connect=lambda _: client)
    made.changes = []
    made.start(lambda: made.changes.append((made.known, made.problems)))
    return made


def master(host):
    return json.dumps({"address": {"ip": host, "port": 5050}}).encode()


def test_the_ensemble_is_read_when_it_is_reached_and_when_it_changes(client, watch):
    """A candidate that is gone between listing and reading is no error."""
    assert watch.known is None
    client.nodes = {"json.info_0000000004": master("10.0.0.1")}
    client.listener("CONNECTED")
    client.handler.run()
    assert watch.known == Known(("http://10.0.0.1:5050",), "http://10.0.0.1:5050", 5)
    assert (watch.problems, watch.heard_at) == ((), None)
    client.nodes = {"json.info_0000000005": master("10.0.0.2")}
    client.watches[-1](Event)
    client.handler.run()
    assert watch.known.leader == "http://10.0.0.2:5050"
    assert watch.known.epoch == 6


@pytest.mark.parametrize("state", ["SUSPENDED", "LOST"])
def test_losing_the_ensemble_takes_nothing_away(state, client, watch):
    client.nodes = {"json.info_0000000004": master("10.0.0.1")}
    client.listener("CONNECTED")
    client.handler.run()
    known = watch.known
    client.listener(state)
    assert watch.known == known
    assert "cannot be reached" in watch.problems[0].reason
    assert watch.heard_at is not None
    client.listener("CONNECTED")
    client.handler.run()
    assert (watch.problems, watch.losses) == ((), 1)


def test_while_nobody_stands_the_last_masters_are_kept(client, watch):
    """An ensemble that restarted has forgotten them for a moment; who leads is not known then."""
    client.nodes = {"json.info_0000000004": master("10.0.0.1")}
    client.listener("CONNECTED")
    client.handler.run()
    client.nodes = None
    client.watches[-1](Event)
    client.handler.run()
    assert watch.known == Known(("http://10.0.0.1:5050",), None, 5)
    assert "no master stands" in watch.problems[0].reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoAuthError(), "user and password"),
        (SessionExpiredError("expired"), "expired"),
        (ZeroDivisionError("oops"), "mistake of ours"),
    ],
    ids=["refusal", "session", "mistake"],
)
def test_a_look_that_fails_is_told_and_tried_again(error, reason, client, watch):
    """A password that is wrong, until somebody corrects the rights; or what nobody expected."""
    client.error = error
    client.listener("CONNECTED")
    client.handler.run()
    assert reason in watch.problems[0].reason
    client.error, client.nodes = None, {"json.info_0000000004": master("10.0.0.1")}
    watch._reactor.advance(LOOK)
    client.handler.run()
    assert watch.problems == ()


def test_masters_of_several_ways_are_one_list(client, watch):
    """Nothing is known for sure until every way was heard."""
    masters = Masters(["http://10.0.0.9:5050"], [watch])
    assert masters.known is None
    client.nodes = {"json.info_0000000004": master("10.0.0.1")}
    client.listener("CONNECTED")
    client.handler.run()
    assert masters.known == Known(("http://10.0.0.9:5050", "http://10.0.0.1:5050"), "http://10.0.0.1:5050", 5)
    assert masters.elects
    assert masters.stale(100.0) == 0.0
