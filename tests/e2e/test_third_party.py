"""A distribution of somebody else adds a source and a REST resource; nothing of ours is touched."""

from __future__ import annotations

import signal

import pytest

PLUGIN = """
from acme.part import AcmePlugin

acme = AcmePlugin()
"""

PART = """
from ipaddress import ip_address

import msgspec
from twisted.application.service import Service
from twisted.plugin import IPlugin
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IServicePlugin, ITaskSource, Part
from dcosnet.model.facts import Facts, SourceStatus
from dcosnet.model.net import Port if False else Protocol
from dcosnet.model.rest import RestReply
from dcosnet.model.task import Port, Task, TaskId


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    greeting: str
    times: int = 1


@implementer(ITaskSource)
class Source(Service):
    name = "acme"

    def watch(self, sink):
        self.sink = sink

    def startService(self):
        super().startService()
        task = Task(TaskId("acme", "1"), "rocket", "acme", ip_address("127.0.0.1"), ports=(Port(Protocol.TCP, 9),))
        self.sink(Facts({task.id: task}))

    def status(self):
        return SourceStatus(True, "one rocket", 1)


@implementer(IRestResource)
class Greeting:
    path = "/acme/<who>"
    methods = frozenset({"GET"})
    local = False

    def __init__(self, settings):
        self.settings = settings

    def respond(self, request):
        return RestReply({"said": f"{self.settings.greeting} {request.arguments['who']}" * self.settings.times})


@implementer(IPlugin, IServicePlugin)
class AcmePlugin:
    name = "acme"
    config = Settings
    needs = frozenset()
    offers = frozenset()
    contributes = frozenset({ITaskSource, IRestResource})

    def make_part(self, config, toolbox):
        source = Source()
        return Part(source, contributes=[(ITaskSource, source), (IRestResource, Greeting(config))])
""".replace("Port if False else Protocol", "Protocol")

CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
[acme]
greeting = "hello"
"""


@pytest.fixture
def path(tmp_path):
    site = tmp_path / "site"
    (site / "dcosnet" / "plugins").mkdir(parents=True)
    (site / "dcosnet" / "plugins" / "acme_plugin.py").write_text(PLUGIN)
    (site / "acme").mkdir()
    (site / "acme" / "__init__.py").touch()
    (site / "acme" / "part.py").write_text(PART)
    return {"PYTHONPATH": str(site)}


def test_a_third_party_source_and_resource_work(make_daemon, path):
    daemon = make_daemon(CONFIG, path)
    daemon.start()
    daemon.ready()
    assert daemon.get("/acme/world") == (200, {"said": "hello world"})
    (task,) = daemon.until("/v1/tasks", bool)
    assert (task["name"], task["framework"], task["owner"]) == ("rocket", "acme", "host-a")
    records = daemon.until("/v1/records", lambda rows: any("rocket" in row["name"] for row in rows))
    assert {"name": "rocket.acme.agentip.dcos.thisdcos.directory", "host": "127.0.0.1", "rtype": "A"} in [
        {**row, "name": row["name"].rstrip(".")} for row in records
    ]
    assert daemon.stop() == -signal.SIGTERM  # twistd passes on what ended it


def test_its_settings_are_checked_like_ours(make_daemon, path):
    done = make_daemon(CONFIG.replace('greeting = "hello"', "greting = 7"), path).run()
    assert done.returncode == 2
    assert "acme.greting" in done.stderr
    assert "greeting" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_that_cannot_be_imported_is_fatal(make_daemon, path, tmp_path):
    """Twisted leaves it out with a log line; its table must not be left out with it."""
    (tmp_path / "site" / "acme" / "part.py").write_text("import nothing_of_this_name")
    done = make_daemon(CONFIG, path).run()
    assert done.returncode == 2
    assert "dcosnet: " in done.stderr
    assert "acme: unknown table" in done.stderr


def test_a_port_in_use_ends_the_start_in_one_line(make_daemon, taken_port):
    address, port = taken_port
    config = CONFIG.replace("127.0.0.1:0", f"{address}:{port}").replace('[acme]\ngreeting = "hello"', "")
    done = make_daemon(config).run()
    assert done.returncode == 2
    complaint = [line for line in done.stderr.splitlines() if line.startswith("dcosnet: ")]
    assert len(complaint) == 1
    assert f"{address}:{port}" in complaint[0]
    assert "Traceback" not in done.stderr
