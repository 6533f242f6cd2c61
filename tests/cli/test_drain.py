"""`dcosnet drain`: what it asks for, what it shows, and when it has an end."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from .conftest import FakeDaemon

Run = Callable[..., Result]

WHAT = {"what": "host/host-a"}
DRAIN: dict[str, Any] = {
    "what": "host/host-a",
    "node": "host-b",
    "user": "root",
    "since": 5.0,
    "note": "new kernel",
    "backends": [
        {"protocol": "tcp", "ip": "10.0.0.1", "port": 8001, "vips": ["web:80"], "flows": 12, "taking": False},
    ],
    "emptied": [],
    "flows": 12,
    "flows_here": 2,
    "nodes": [{"node": "host-a", "flows": 10}, {"node": "host-b", "flows": 2}, {"node": "host-d", "flows": 0}],
    "taking": [],
    "silent": ["host-c"],
    "drained": False,
}
DONE = {**DRAIN, "flows": 0, "flows_here": 0, "nodes": [], "silent": [], "drained": True}


def drains(*some: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"node": "host-b", "drains": list(some)}


def test_the_list_tells_what_is_missing_and_where(run: Run, daemon: FakeDaemon) -> None:
    """Whether the host may be switched off, and if not, whom to ask."""
    empty = {**DONE, "what": "service/shop/old", "backends": [], "emptied": ["web.shop.l4lb.thisdcos.directory:80"]}
    busy = {**DRAIN, "what": "task/f/t", "taking": ["host-a"]}
    daemon.replies["GET /v1/drains"] = drains(DRAIN, DONE, empty, busy)
    result = run("--api", daemon.url, "drain")
    assert result.exit_code == 0
    _, left, done, nothing, taking = result.stdout.splitlines()
    assert left.split()[2:6] == ["root@host-b", "1", "12", "2"]
    assert left.endswith("host-a 10, host-b 2, host-c has not told  new kernel")
    assert "drained" in done
    assert "drained (it has no backends)" in nothing
    assert "host-a: still given new flows" in taking
    assert result.stderr == (
        "web.shop.l4lb.thisdcos.directory:80: all its backends drain, so new connections are refused\n"
    )
    assert json.loads(run("--api", daemon.url, "-o", "json", "drain").stdout)["drains"][0] == DRAIN


def test_a_drain_is_begun_with_who_and_why(run: Run, local_daemon: FakeDaemon) -> None:
    local_daemon.replies["POST /v1/drains"] = (200, WHAT)
    result = run("--api", local_daemon.url, "drain", "host-a", "--note", "new kernel")
    assert (result.exit_code, result.stdout) == (0, "host/host-a drains; see `dcosnet drain`\n")
    sent = {"what": "host-a", "note": "new kernel", "user": getpass.getuser()}
    assert local_daemon.asked() == ("POST", "/v1/drains", sent)
    assert json.loads(run("--api", local_daemon.url, "-o", "json", "drain", "host-a").stdout) == WHAT


def test_a_drain_is_ended(run: Run, local_daemon: FakeDaemon) -> None:
    """A text in full has slashes, and is one part of the path."""
    local_daemon.replies["DELETE /v1/drains/host%2Fhost-a"] = (200, WHAT)
    result = run("--api", local_daemon.url, "drain", "--end", "host/host-a")
    assert (result.exit_code, result.stdout) == (0, "host/host-a is drained no longer\n")
    refusal = {"error": "no drain was ended", "reason": "'x' is not drained", "remedy": "`dcosnet drain` lists what is"}
    local_daemon.replies["DELETE /v1/drains/x"] = (404, refusal)
    result = run("--api", local_daemon.url, "drain", "--end", "x")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (1, "  why: 'x' is not drained")


def test_waiting_ends_when_nothing_is_left_anywhere(run: Run, local_daemon: FakeDaemon) -> None:
    """A line for each change, and none for the times between; a drain that is not listed yet is waited for."""
    local_daemon.replies["POST /v1/drains"] = (200, WHAT)
    local_daemon.replies["GET /v1/drains"] = [drains(), drains(DRAIN), drains(DRAIN), drains(DONE)]
    result = run("--api", local_daemon.url, "drain", "host-a", "--wait", "--timeout", "60s")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "host/host-a drains",
        "12 left: host-a 10, host-b 2, host-c has not told",
        "drained",
    ]


def test_waiting_for_too_long_tells_what_is_left(run: Run, local_daemon: FakeDaemon) -> None:
    local_daemon.replies |= {"POST /v1/drains": (200, WHAT), "GET /v1/drains": drains(DRAIN)}
    result = run("--api", local_daemon.url, "drain", "host-a", "--wait", "--timeout", "1ms")
    assert result.exit_code == 5
    assert result.stderr.splitlines()[:2] == [
        "host/host-a is not drained yet",
        "  why: host-a 10, host-b 2, host-c has not told",
    ]
    assert "`dcosnet drain --end host/host-a`" in result.stderr
    result = run("--api", local_daemon.url, "-o", "json", "drain", "host-a", "--wait", "--timeout", "1ms")
    assert (result.exit_code, json.loads(result.stdout)) == (5, DRAIN)


def test_waiting_for_what_nobody_knows_says_so(run: Run, local_daemon: FakeDaemon) -> None:
    """A mistyped address is drained at once; nobody shall switch off another host for it."""
    nothing = {**DONE, "backends": []}
    local_daemon.replies |= {"POST /v1/drains": (200, WHAT), "GET /v1/drains": drains(nothing)}
    result = run("--api", local_daemon.url, "drain", "host-a", "--wait")
    assert (result.exit_code, result.stdout.splitlines()[1]) == (0, "drained (it has no backends)")


def test_waiting_for_a_drain_that_somebody_ends_fails(run: Run, local_daemon: FakeDaemon) -> None:
    local_daemon.replies |= {"POST /v1/drains": (200, WHAT), "GET /v1/drains": [drains(DRAIN), drains()]}
    result = run("--api", local_daemon.url, "drain", "host-a", "--wait")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (1, "  why: somebody ended it")


@pytest.mark.parametrize(
    "options",
    [
        ("--end",),
        ("",),
        ("", "--end"),
        ("--note", "x"),
        ("host-a", "--end", "--wait"),
        ("host-a", "--timeout", "5m"),
        ("host-a", "--wait", "--timeout", "soon"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Run, local_daemon: FakeDaemon, options) -> None:
    """Before anything is drained."""
    assert run("--api", local_daemon.url, "drain", *options).exit_code == 2
    assert local_daemon.requests.empty()
