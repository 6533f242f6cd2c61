"""The demonstration: backends that answer, and lines that can be pasted."""

from __future__ import annotations

import io
import socket
from ipaddress import ip_address
from pathlib import PurePath

import attrs
import pytest
import pytest_twisted
from treq import content
from twisted.internet.task import Clock
from twisted.web.client import Agent

from dcosnet.errors import ConfigError
from dcosnet.model.zone import Zone, address_record
from dcosnet.ops.banner import Example, banner, connectable
from dcosnet.ops.demo import Announcement, Settings, make_part

NAME = "web.shop.l4lb.thisdcos.directory"
FACTS = {
    "dns": {"listen": ["127.0.0.1:8053"]},
    "ops": {"listen": ["unix:/x", "127.0.0.1:62080"]},
    "files": {"path": "/etc/d"},
}


@pytest.fixture
def announced(toolbox, clock: Clock):
    """The console, and the announcement that writes to it."""
    toolbox.facts = FACTS
    out = io.StringIO()
    service = Announcement(toolbox, out)
    service.startService()
    yield out
    service.stopService()
    assert clock.getDelayedCalls() == []


def test_nothing_is_said_until_every_part_is_ready(announced, toolbox, clock: Clock) -> None:
    """A line that is pasted works."""
    clock.advance(1)
    assert announced.getvalue() == ""
    toolbox.ready["dns"] = None
    clock.advance(1)
    assert f"dig @127.0.0.1 -p 8053 {NAME} +short\n" in announced.getvalue()
    assert "curl http://127.11.3.4:8000/\n" in announced.getvalue()
    assert "http://127.0.0.1:62080/\n" in announced.getvalue()


def test_it_is_said_once(announced, toolbox, clock: Clock) -> None:
    """And again only when the address that it names is another one."""
    toolbox.ready["dns"] = None
    clock.pump([1.0] * 5)
    assert announced.getvalue().count("dcosnet is ready") == 1


def test_a_vip_that_moved_is_told_again(announced, toolbox, clock: Clock, shop) -> None:
    """The zone follows what is applied, so the new lines work."""
    toolbox.ready["dns"] = None
    clock.advance(1)
    records = {NAME: (address_record(ip_address("127.11.9.9")),)}
    shop.l4lb.zone.publish(Zone("l4lb.thisdcos.directory", records))
    clock.advance(1)
    assert announced.getvalue().count("dcosnet is ready") == 2
    assert "curl http://127.11.9.9:8000/\n" in announced.getvalue()


def test_a_vip_without_an_address_is_no_example(announced, toolbox, clock: Clock, shop) -> None:
    """It is not applied yet."""
    toolbox.ready["dns"] = None
    shop.l4lb.zone.publish(Zone("l4lb.thisdcos.directory", {}))
    clock.advance(1)
    assert announced.getvalue() == ""


def test_lines_that_would_not_work_are_left_out() -> None:
    """Without DNS there is no dig, without HTTP no page."""
    example = Example(NAME, ip_address("fd01::1"), 80, ("shop.toml",))
    assert "dig" not in banner(example, {})
    assert "page" not in banner(example, {})
    assert "curl http://[fd01::1]:80/" in banner(example, {})
    assert "/etc/d/shop.toml" in banner(example, FACTS)
    assert "    d/shop.toml\n" in banner(example, FACTS, PurePath("/etc"))
    assert "    /etc/d/shop.toml\n" in banner(example, FACTS, PurePath("/srv"))
    assert "    shop.toml\n" in banner(example, {"files": {}}, PurePath("/etc"))
    assert "edit" not in banner(attrs.evolve(example, origins=()), FACTS)


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        (["unix:/x", "1.2.3.4:5"], "1.2.3.4:5"),
        (["0.0.0.0:53"], "127.0.0.1:53"),
        (["[::]:53"], "[::1]:53"),
        ([], "None"),
        (None, "None"),
    ],
)
def test_a_wildcard_is_asked_over_loopback(listen: object, told: str) -> None:
    """Nobody can connect to 0.0.0.0 by that name everywhere."""
    assert str(connectable(listen)) == told


@pytest_twisted.ensureDeferred
async def test_backends_say_who_they_are(toolbox) -> None:
    """At every path but /health, which says that all is well."""
    from twisted.internet import reactor

    toolbox.reactor = reactor
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        text = f"127.0.0.1:{free.getsockname()[1]}"
    part = make_part(Settings(backends=(text,)), toolbox, io.StringIO())
    assert part.ready() == "not listening yet"
    part.service.privilegedStartService()
    part.service.startService()
    try:
        assert part.ready() is None
        assert part.describe() == {"backends": [text]}
        agent = Agent(reactor)
        for path, body in (("", f"hello from {text}\n"), ("a/b", f"hello from {text}\n"), ("health", "ok\n")):
            response = await agent.request(b"GET", f"http://{text}/{path}".encode())
            assert response.code == 200
            assert (await content(response)).decode() == body
    finally:
        await part.service.stopService()


@pytest.mark.parametrize("text", ["localhost:80", "127.0.0.1", "127.0.0.1:0"])
def test_a_backend_is_an_address_with_a_port(toolbox, text: str) -> None:
    """Anything else names the setting."""
    with pytest.raises(ConfigError, match=r"^demo\.backends: "):
        make_part(Settings(backends=(text,)), toolbox, io.StringIO())
