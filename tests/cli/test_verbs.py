"""What the verbs print of what the daemon says, and their exit codes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from .conftest import FakeDaemon

Run = Callable[..., Result]

STATUS = {
    "node": "host-a",
    "version": "1.2.3",
    "uptime_seconds": 90.5,
    "ready": True,
    "parts": {"dns": {"ready": True, "reason": None, "facts": {"listen": ["127.0.0.1:53"]}}},
}
COUNTS = {
    "connections": 7,
    "active": 2,
    "failures": {"refused": 3, "timeout": 0},
    "retries": 1,
    "bytes": {"to_backend": 999, "to_client": 2_500_000},
    "idle_closed": 4,
    "connect": {"bounds": [0.001, 0.1], "counts": [6, 1, 0], "seconds": 0.014},
}
REST = {"use": "resting", "seconds": 72.5, "why": "five failures"}
VIP = {
    "vip": "web.shop.l4lb.thisdcos.directory:8000",
    "protocol": "tcp",
    "address": ["127.11.0.1"],
    "state": "partly",
    "listeners": [
        {"address": "127.11.0.1", "port": 8000, "problem": None},
        {"address": "fd01:c::1", "port": 8000, "problem": "no such address"},
    ],
    "problems": [],
    "total": COUNTS,
    "backend": [
        {"ip": "127.0.0.1", "port": 8001, "weight": 1, "draining": False, "drains": [], "counts": COUNTS} | REST,
        {
            "ip": "::1",
            "port": 8002,
            "weight": 0,
            "draining": True,
            "drains": ["host/a"],
            "use": "draining",
            "counts": None,
        },
    ],
}
TASK = {
    "id": {"framework": "files/shop", "task": "web@a"},
    "name": "web",
    "framework": "shop",
    "agent": "127.0.0.1",
    "addresses": ["127.0.0.1"],
    "state": "running",
    "health": "healthy",
    "weight": 1,
    "ports": [{"protocol": "tcp", "port": 8001, "host_port": None, "name": "default", "vips": ["/web:8000"]}],
    "owner": "host-a",
    "provenance": {"source": "files", "reference": "web.toml"},
    "problems": [{"label": "/:1", "reason": "VIP '/:1' has no name"}],
}
SOURCE = {"name": "files", "synced": True, "detail": "inotify", "tasks": 1, "changed_at": None, "problems": []}

MEMBER = {
    "name": "host-b",
    "state": "alive",
    "age_seconds": 3661.5,
    "degraded": False,
    "problem": None,
    "accused_by": [],
    "addresses": ["10.0.0.2", "fd00::2"],
    "rtt_seconds": 0.00123,
}
REFUSAL = {
    "peer": "10.0.0.9:40000",
    "reason": "wrong_cluster",
    "text": "it is of the cluster 'test'",
    "by": "node",
    "age_seconds": 5.2,
    "count": 3,
}


def members(*some: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"node": "host-a", "unsynced": None, "members": list(some), "refusals": [], **more}


def test_status_shows_each_part(run: Run, daemon: FakeDaemon) -> None:
    """One look tells whether the node works and where it listens."""
    daemon.replies["GET /v1/status"] = (200, STATUS)
    result = run("--api", daemon.url, "status")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "host-a: ready, dcosnet 1.2.3, up 1m30s",
        "PART  READY  LISTENS       REASON",
        "dns   yes    127.0.0.1:53  -",
    ]


def test_status_of_a_degraded_node_is_a_failure(run: Run, daemon: FakeDaemon) -> None:
    """A script sees by the exit code what a person sees by the text."""
    part = {"ready": False, "reason": "no upstream answers", "facts": {}}
    daemon.replies["GET /v1/status"] = (200, STATUS | {"ready": False, "parts": {"dns": part}})
    result = run("--api", daemon.url, "status")
    assert result.exit_code == 1
    assert "NOT READY" in result.output
    assert "no upstream answers" in result.output


def test_vips_show_backends_and_which_of_them_drain(run: Run, daemon: FakeDaemon) -> None:
    """Where traffic goes, on one line a VIP, and on the error output why some of it is not served."""
    daemon.replies["GET /v1/vips"] = (200, [VIP])
    result = run("--api", daemon.url, "vips")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["VIP", "PROTOCOL", "ADDRESS", "STATE", "ACTIVE", "BACKENDS"],
        [VIP["vip"], "tcp", "127.11.0.1", "partly", "2", "127.0.0.1:8001(rests)", "[::1]:8002(drains)"],
    ]
    assert result.stderr == f"tcp/{VIP['vip']}: [fd01:c::1]:8000: no such address\n"
    assert daemon.asked() == ("GET", "/v1/vips?detail", None)


def test_vips_tell_what_is_drained_from_what_is_not_healthy(run: Run, daemon: FakeDaemon) -> None:
    """Whoever sees "drains" looks for a colleague, and not for what is broken; a VIP without any backend is told."""
    drained, off = VIP["backend"][1], {**VIP["backend"][1], "ip": "::2", "drains": []}
    daemon.replies["GET /v1/vips"] = (200, [VIP | {"listeners": [], "backend": [drained, off]}])
    result = run("--api", daemon.url, "vips")
    assert result.stdout.splitlines()[1].endswith("[::1]:8002(drains) [::2]:8002(off)")
    assert result.stderr == (
        f"tcp/{VIP['vip']}: new flows are refused, because all its backends are drained, unhealthy or of weight 0\n"
    )
    _, one, two = run("--api", daemon.url, "vips", "--detail").stdout.splitlines()
    assert "  draining: host/a  " in one
    assert "  off: unhealthy or of weight 0  " in two


def test_a_problem_of_a_vip_names_an_address_once(run: Run, daemon: FakeDaemon) -> None:
    """TCP and UDP of one address are told apart."""
    listener = {"address": "127.41.0.1", "port": 80, "problem": "it is taken"}
    vip = VIP | {"vip": "127.41.0.1:80", "protocol": "udp", "listeners": [listener]}
    daemon.replies["GET /v1/vips"] = (200, [vip])
    assert run("--api", daemon.url, "vips").stderr == "udp/127.41.0.1:80: it is taken\n"


@pytest.mark.parametrize(("output", "shown"), [("table", ""), ("json", "[]\n")])
def test_a_name_that_means_no_vip_is_a_failure(run: Run, daemon: FakeDaemon, output: str, shown: str) -> None:
    """A mistyped name is not an empty table; without a name there may well be none."""
    daemon.replies["GET /v1/vips"] = (200, [])
    result = run("--api", daemon.url, "-o", output, "vips", "wev.shop")
    assert (result.exit_code, result.stdout) == (1, shown)
    assert "'wev.shop' means none" in result.stderr
    assert run("--api", daemon.url, "-o", output, "vips").exit_code == 0


def test_vips_show_the_counts_of_each_backend(run: Run, daemon: FakeDaemon) -> None:
    """One that had no flow shows zeros; of a failure the reasons; the name is filtered by the daemon."""
    daemon.replies["GET /v1/vips"] = (200, [VIP])
    lines = run("--api", daemon.url, "vips", "web.sh?p", "--detail").stdout.splitlines()
    assert daemon.asked()[1] == "/v1/vips?detail&name=web.sh%3Fp"
    assert ["|".join(re.split("  +", line)[2:]) for line in lines] == [
        "BACKEND|WEIGHT|STATE|ACTIVE|CONNECTIONS|FAILURES|RETRIES|IN|OUT|IDLE ENDED|CONNECT",
        "127.0.0.1:8001|1|resting 1m12s: five failures|2|7|3 (refused 3)|1|999B|2.5MB|4|2.00ms",
        "[::1]:8002|0|draining: host/a|0|0|0|0|0B|0B|0|-",
    ]


@pytest.mark.parametrize("period", ["web", "0", "0.01", "1h1h1h1h1h1h9999d", "9" * 400])
def test_a_period_that_is_none_is_a_usage_error(run: Run, daemon: FakeDaemon, period: str) -> None:
    """A name after --watch would be taken for it, and the error says so."""
    result = run("--api", daemon.url, "vips", f"--watch={period}")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert "--watch" in result.stderr


@pytest.mark.parametrize("output", ["table", "json"])
def test_vips_are_watched_until_ctrl_c(daemon: FakeDaemon, output: str) -> None:
    """Blocks or lines one after the other where there is no terminal, and a clean end."""
    daemon.replies["GET /v1/vips"] = (200, [VIP])
    program = "from dcosnet.cli import main; main()"
    command = [sys.executable, "-c", program, "--api", daemon.url, "-o", output, "vips", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        for _ in range(3):
            daemon.asked()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    if output == "json":
        looks = [json.loads(line) for line in [first, *rest.splitlines()]]
        assert looks[0][0]["rates"] is None
        assert looks[1][0]["rates"]["connections"] == 0.0
        assert looks[1][0]["backend"][0]["counts"] == COUNTS
    else:
        assert rest.count(first) >= 1
        assert [VIP["vip"], "tcp", "partly", "2", "0.0", "0.0", "0.00", "0.00", "-", "-"] in [
            line.split() for line in rest.splitlines()
        ]


def test_records_send_their_pattern(run: Run, daemon: FakeDaemon) -> None:
    """The daemon filters, so that not all of a large zone travels; the pattern arrives as it was typed."""
    daemon.replies["GET /v1/records"] = (200, [{"name": "web.x", "host": "127.0.0.1", "rtype": "A"}])
    result = run("--api", daemon.url, "records", "we?&*")
    assert result.output.splitlines() == ["NAME   TYPE  DATA", "web.x  A     127.0.0.1"]
    assert daemon.asked()[1] == "/v1/records?name=we%3F%26%2A"


def test_tasks_show_where_they_run_and_their_problems(run: Run, daemon: FakeDaemon) -> None:
    """What is wrong with a task goes to the error output, beside the table."""
    daemon.replies["GET /v1/tasks"] = (200, [TASK])
    result = run("--api", daemon.url, "tasks")
    line = "web   shop       127.0.0.1  127.0.0.1  8001/tcp  running  healthy  1       files   web@a"
    assert result.stdout.splitlines()[1] == line
    assert result.stderr == "web of shop: VIP '/:1' has no name\n"


def test_members_show_who_accuses_whom(run: Run, daemon: FakeDaemon) -> None:
    """State, age and round trip on one line; what somebody should look at goes to the error output."""
    accusations = [{"accuser": "host-a", "reason": "silent", "age_seconds": 7.9}]
    lost = {"name": "host-c", "state": "unreachable", "age_seconds": 6, "rtt_seconds": None, "accused_by": accusations}
    ahead = MEMBER | lost | {"problem": "its clock is 1h ahead", "addresses": []}
    daemon.replies["GET /v1/members"] = (200, members(MEMBER, ahead, unsynced="no peer yet", refusals=[REFUSAL]))
    result = run("--api", daemon.url, "members")
    assert result.exit_code == 1
    assert [line.split(maxsplit=5) for line in result.stdout.splitlines()] == [
        ["NAME", "STATE", "SINCE", "RTT", "ADDRESS", "ACCUSED BY"],
        ["host-b", "alive", "1h1m1s", "1.2ms", "10.0.0.2", "fd00::2  -"],
        ["host-c", "unreachable", "6s", "-", "-", "host-a(silent, 7s)"],
    ]
    assert result.stderr.splitlines() == [
        "host-a: no peer yet",
        "host-c: its clock is 1h ahead",
        "10.0.0.9:40000 was refused 5s ago (times: 3): it is of the cluster 'test'",
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"state": "left"}, 0),
        ({"state": "unreachable"}, 1),
        ({"state": "dead"}, 1),
        ({"degraded": True}, 1),
        ({"problem": "its certificate ends tomorrow"}, 1),
    ],
)
def test_members_fail_when_one_is_not_well(run: Run, daemon: FakeDaemon, change: dict[str, Any], code: int) -> None:
    """Monitoring asks by the exit code; who left did so on purpose."""
    daemon.replies["GET /v1/members"] = (200, members(MEMBER | change))
    assert run("--api", daemon.url, "members").exit_code == code
    assert run("--api", daemon.url, "members", "-o", "json").exit_code == code


@pytest.mark.parametrize("by", ["node", "peer"])
def test_a_refused_peer_is_a_failure(run: Run, daemon: FakeDaemon, by: str) -> None:
    """It is no member, and nobody would see it otherwise."""
    daemon.replies["GET /v1/members"] = (200, members(MEMBER, refusals=[REFUSAL | {"by": by}]))
    result = run("--api", daemon.url, "members")
    assert result.exit_code == 1
    assert ("refused host-a" in result.stderr) == (by == "peer")


def test_a_degraded_member_is_shown_as_such(run: Run, daemon: FakeDaemon) -> None:
    """It is alive, and some cannot reach it."""
    daemon.replies["GET /v1/members"] = (200, members(MEMBER | {"degraded": True}))
    assert "degraded" in run("--api", daemon.url, "members").stdout


@pytest.mark.parametrize(
    ("change", "code"),
    [({}, 0), ({"synced": False}, 1), ({"problems": [{"reference": "a.toml", "reason": "broken"}]}, 1)],
)
def test_sources_fail_when_one_is_not_well(run: Run, daemon: FakeDaemon, change: dict[str, Any], code: int) -> None:
    """A file that could not be used is a failure that monitoring can see."""
    daemon.replies["GET /v1/sources"] = (200, [SOURCE | change])
    result = run("--api", daemon.url, "sources")
    assert result.exit_code == code
    assert ("a.toml: broken" in result.stderr) == ("problems" in change)


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_is_the_daemons_own_document(run: Run, daemon: FakeDaemon, place: str) -> None:
    """Global options may stand before or after the verb."""
    daemon.replies["GET /v1/vips"] = (200, [VIP])
    options = ["-o", "json", "--api", daemon.url]
    result = run(*options, "vips") if place == "before" else run("vips", *options)
    assert json.loads(result.output) == [VIP]


def test_names_cannot_steer_the_terminal(run: Run, daemon: FakeDaemon) -> None:
    """A task may be named by anybody."""
    daemon.replies["GET /v1/tasks"] = (200, [TASK | {"name": "\x1b]0;owned\x07\nx", "problems": ["\x9b1m"]}])
    output = run("--api", daemon.url, "tasks").output
    assert not {"\x1b", "\x07", "\x9b"} & set(output)
    assert "?]0;owned??x" in output


def test_daemon_is_asked_over_a_unix_socket(run: Run, local_daemon: FakeDaemon) -> None:
    """The same over a socket file."""
    local_daemon.replies["GET /v1/status"] = (200, STATUS)
    assert run("--api", local_daemon.url, "status").exit_code == 0


def test_daemon_is_found_by_its_configuration(run: Run, local_daemon: FakeDaemon, tmp_path: Path) -> None:
    """The UNIX socket first, relative to the state directory as the daemon makes it; -o and -c suffice."""
    local_daemon.replies["GET /v1/status"] = (200, STATUS)
    config = tmp_path / "etc" / "dcosnet.toml"
    config.parent.mkdir()
    config.write_text(
        '[node]\nstate_dir = ".."\n[ops]\nlisten = ["tcp:1:interface=127.0.0.1", "unix:api.sock:mode=600"]\n'
    )
    assert run("-c", config, "status").exit_code == 0


def test_environment_names_the_daemon_and_the_option_wins(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DCOSNET_API saves typing; it never overrides what was typed, before or after the verb."""
    daemon.replies["GET /v1/status"] = (200, STATUS)
    monkeypatch.setenv("DCOSNET_API", daemon.url)
    assert run("status").exit_code == 0
    monkeypatch.setenv("DCOSNET_API", "unix:/nowhere/at/all")
    assert run("status").exit_code == 3
    assert run("--api", daemon.url, "status").exit_code == 0
    assert run("status", "--api", daemon.url).exit_code == 0


def three_lines(result: Result) -> list[str]:
    lines = result.stderr.splitlines()
    assert len(lines) == 3, result.output
    assert lines[1].startswith("  why: ")
    assert lines[2].startswith("  try: ")
    return lines


def test_unreachable_daemon_is_exit_code_3(run: Run, tmp_path: Path) -> None:
    """What, why, what to do."""
    result = run("--api", f"unix:{tmp_path}/none.sock", "status")
    assert result.exit_code == 3
    assert "No such file or directory" in three_lines(result)[1]


@pytest.mark.parametrize(("status", "code"), [(403, 4), (401, 4), (404, 1), (500, 1), (507, 1)])
def test_refusal_shows_the_daemons_words(run: Run, daemon: FakeDaemon, status: int, code: int) -> None:
    """The daemon knows best why, and what helps."""
    daemon.replies["GET /v1/vips"] = (status, {"error": "no", "reason": "because", "remedy": "ask nicely"})
    result = run("--api", daemon.url, "vips")
    assert (result.exit_code, three_lines(result)) == (code, ["no", "  why: because", "  try: ask nicely"])


@pytest.mark.parametrize("body", [b"<html>", b"\xff"])
def test_reply_of_another_program_is_a_failure(run: Run, daemon: FakeDaemon, body: bytes) -> None:
    """Something else may listen on the port."""
    daemon.replies["GET /v1/vips"] = (200, body)
    result = run("--api", daemon.url, "vips")
    assert result.exit_code == 1
    assert "is not a dcosnet daemon" in three_lines(result)[0]


@pytest.fixture
def closing_port() -> Iterator[int]:
    """A port that takes a connection and closes it at the first bytes."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_daemon_that_dies_in_the_middle_is_unreachable(run: Run, closing_port: int) -> None:
    """No traceback, whatever the connection does."""
    result = run("--api", f"http://127.0.0.1:{closing_port}", "status")
    assert result.exit_code == 3
    three_lines(result)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "unix:", "http://h:99999", "http://h/path", "nonsense"])
def test_address_that_is_none_is_a_usage_error(run: Run, url: str) -> None:
    """Both forms are shown."""
    result = run("--api", url, "status")
    assert result.exit_code == 2
    assert "unix:/" in three_lines(result)[2]


def test_registering_needs_a_unix_socket(run: Run, tmp_path: Path) -> None:
    """A configuration without one is told what to add."""
    config = tmp_path / "dcosnet.toml"
    config.write_text('[ops]\nlisten = ["tcp:62080:interface=127.0.0.1"]\n')
    result = run("-c", config, "deregister", "web", "--group", "shop")
    assert result.exit_code == 2
    assert "[ops] listen" in three_lines(result)[2]


def test_status_tells_what_a_part_could_not_do(run: Run, daemon: FakeDaemon) -> None:
    """A VIP whose port another program has is not served: the node is degraded, ready as its parts may be."""
    facts = {"problems": [{"subject": "tcp/127.0.0.1:80", "reason": "Address already in use"}]}
    part = {"ready": True, "reason": None, "facts": facts}
    daemon.replies["GET /v1/status"] = (200, STATUS | {"parts": {"l4lb": part}})
    result = run("--api", daemon.url, "status")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "l4lb: tcp/127.0.0.1:80: Address already in use"


def test_status_tells_which_plane_serves_and_why(run: Run, daemon: FakeDaemon) -> None:
    facts = {"plane": "userspace", "reason": "the first that works here", "able": ["retry", "tcp"]}
    part = {"ready": True, "reason": None, "facts": facts}
    daemon.replies["GET /v1/status"] = (200, STATUS | {"parts": {"l4lb": part}})
    result = run("--api", daemon.url, "status")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "l4lb: plane userspace, the first that works here; able: retry, tcp"


def _script(daemon: FakeDaemon, stdout: str) -> subprocess.CompletedProcess[str]:
    """The real command, by a shell that sends its output where `stdout` says."""
    program = "from dcosnet.cli import main; main()"
    command = f'"$0" -c "{program}" --api {daemon.url} vips {stdout}'
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_nobody_takes_is_a_failure_in_three_lines(daemon: FakeDaemon) -> None:
    """A full disk behind a redirection is no bug of ours to show a traceback for."""
    daemon.replies["GET /v1/vips"] = (200, [VIP])
    done = _script(daemon, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[:2] == ["the output could not be written", "  why: No space left on device"]


def test_a_closed_output_is_no_error(daemon: FakeDaemon) -> None:
    """Who closes it wants the exit code alone."""
    daemon.replies["GET /v1/vips"] = (200, [VIP | {"listeners": []}])
    done = _script(daemon, ">&-")
    assert (done.returncode, done.stderr) == (0, "")
