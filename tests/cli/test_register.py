"""Registering a service, and keeping it while a program runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from click.testing import Result

from dcosnet.cli.registration import document

from .conftest import FakeDaemon

Run = Callable[..., Result]

_MAIN = "from dcosnet.cli import main; main()"
SERVICE = ("--group", "shop", "--address", "127.0.0.1", "--port", "8001", "--vip", "/web:8000")
PATH = "/v1/register/web"
DELETE = ("DELETE", f"{PATH}?group=shop&instance=", None)
REPLY = (200, {"name": "web", "group": "shop", "instance": "", "expires_at": 1.0})
BUSY = (503, {"error": "starting", "reason": "just now", "remedy": "wait"})


@contextmanager
def registering(daemon: FakeDaemon, *program: str, ttl: str = "60s") -> Iterator[subprocess.Popen[str]]:
    """`dcosnet register ... -- program` as a process."""
    command = [sys.executable, "-c", _MAIN, "--api", daemon.url, "register", "web", *SERVICE, "--ttl", ttl]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--", *program], text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def accepting(local_daemon: FakeDaemon) -> FakeDaemon:
    local_daemon.replies |= {f"PUT {PATH}": REPLY, f"DELETE {PATH}": REPLY}
    return local_daemon


def test_options_become_the_service(run: Run, accepting: FakeDaemon) -> None:
    """All that a file in services.d can say of a service that needs no check."""
    more = ("--label", "A=b=c", "--ttl", "1m30s", "--instance", "1", "--port", "53/udp/dns", "--vip", "53=/dns:53")
    vips = ("--group", "shop", "--address", "127.0.0.1", "--port", "8001", "--vip", "8001=/web:8000")
    result = run("--api", accepting.url, "register", "we b/x", *vips, *more)
    accepting.replies["PUT /v1/register/we%20b%2Fx"] = REPLY
    assert result.exit_code == 1, "the daemon knew no such path"
    assert run("--api", accepting.url, "register", "we b/x", *vips, *more).exit_code == 0
    accepting.asked()
    assert accepting.asked() == (
        "PUT",
        "/v1/register/we%20b%2Fx",
        {
            "group": "shop",
            "address": "127.0.0.1",
            "ports": [
                {"port": 8001, "protocol": "tcp", "vip": ["/web:8000"]},
                {"port": 53, "protocol": "udp", "vip": ["/dns:53"], "name": "dns"},
            ],
            "labels": {"A": "b=c"},
            "ttl": 90.0,
            "instance": "1",
        },
    )


@pytest.mark.parametrize(
    ("ports", "vips", "labels"),
    [
        (["x"], [], []),
        (["80/sctp"], [], []),
        ([], ["/web:80"], []),
        (["80", "81"], ["/web:80"], []),
        (["80"], ["81=/web:80"], []),
        (["80"], [], ["nothing"]),
        (["80"], [], ["=x"]),
    ],
)
def test_options_that_do_not_go_together_are_refused(ports: list[str], vips: list[str], labels: list[str]) -> None:
    """With the option and its right form."""
    with pytest.raises(ValueError, match=r"^--(port|vip|label) "):
        document(group="g", address="a", ports=ports, vips=vips, labels=labels, ttl=1.0, instance="")


def test_deregister_asks_for_the_group_and_instance(run: Run, accepting: FakeDaemon) -> None:
    """A second end is a failure: there is nothing to end."""
    assert run("--api", accepting.url, "deregister", "web", "--group", "shop").exit_code == 0
    assert accepting.asked() == DELETE
    del accepting.replies[f"DELETE {PATH}"]
    assert run("--api", accepting.url, "deregister", "web", "--group", "shop").exit_code == 1


def test_registration_lives_as_long_as_the_program(accepting: FakeDaemon) -> None:
    """Made before it starts, ended after it has ended; its output and exit code are the command's."""
    with registering(accepting, "sh", "-c", "echo started; read line; exit 7") as process:
        assert accepting.asked()[:2] == ("PUT", PATH)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert accepting.requests.empty()
        process.communicate("\n", timeout=30)
        assert process.returncode == 7
    assert accepting.asked() == DELETE
    assert accepting.requests.empty()


def test_registration_is_renewed(accepting: FakeDaemon) -> None:
    """Every third of its life, so that two renewals may be lost."""
    with registering(accepting, "cat", ttl="150ms") as process:
        for _ in range(3):
            assert accepting.asked()[0] == "PUT"
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_program(accepting: FakeDaemon, number: signal.Signals) -> None:
    """A supervisor stops the program through the command, and the registration ends."""
    waits = (
        f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [{number}]); print('ready', flush=True)",
        f"signal.sigwait([{number}]); print('got'); exit(3)",
    )
    with registering(accepting, sys.executable, "-c", ";".join(waits)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "got\n"
        assert process.wait(30) == 3
    assert [accepting.asked()[0], accepting.asked()[0]] == ["PUT", "DELETE"]


def test_program_killed_by_a_signal_is_told_as_shells_do(accepting: FakeDaemon) -> None:
    """128 and the number."""
    with registering(accepting, "sh", "-c", "kill -KILL $$") as process:
        assert process.wait(30) == 137
    assert [accepting.asked()[0], accepting.asked()[0]] == ["PUT", "DELETE"]


def test_program_gets_the_signals_that_it_expects(accepting: FakeDaemon) -> None:
    """Nothing that the command blocks or ignores is left so for the program."""
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) or 'none')"
    with registering(accepting, sys.executable, "-c", code) as process:
        assert process.communicate(timeout=30)[0] == "none\n"


def test_daemon_that_is_away_is_waited_for(accepting: FakeDaemon) -> None:
    """The program runs on; it is said once that it cannot be found, and once the daemon is back it can."""
    with registering(accepting, "cat", ttl="90ms") as process:
        accepting.asked()
        accepting.replies[f"PUT {PATH}"] = BUSY
        for _ in range(4):
            accepting.asked()
        accepting.replies[f"PUT {PATH}"] = REPLY
        for _ in range(3):
            accepting.asked()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
    assert errors.splitlines() == [
        "starting",
        "  why: just now",
        "  try: wait",
        "dcosnet: web is not registered now; trying on",
    ]


def test_busy_daemon_does_not_keep_the_program_from_starting(local_daemon: FakeDaemon) -> None:
    """It is no verdict on the registration."""
    local_daemon.replies[f"PUT {PATH}"] = BUSY
    with registering(local_daemon, "echo", "ran") as process:
        assert process.communicate(timeout=30)[0] == "ran\n"


def test_program_starts_without_a_daemon(local_daemon: FakeDaemon) -> None:
    """At boot the service may come before the daemon."""
    nowhere = FakeDaemon(f"{local_daemon.url}.none")
    with registering(nowhere, "sh", "-c", "echo ran") as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "ran\n")
    assert errors.count("is not reachable") == 1


def test_refused_registration_does_not_start_the_program(local_daemon: FakeDaemon) -> None:
    """A mistake in the options would never go away by itself."""
    local_daemon.replies[f"PUT {PATH}"] = (400, {"error": "no", "reason": "port 0", "remedy": "another"})
    with registering(local_daemon, "echo", "ran") as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert "port 0" in errors


def test_program_that_cannot_be_run_leaves_no_registration(accepting: FakeDaemon) -> None:
    """Exit codes as of shells."""
    with registering(accepting, "/nowhere/program") as process:
        assert "cannot be run: No such file" in process.communicate(timeout=30)[1]
        assert process.returncode == 127
    assert [accepting.asked()[0], accepting.asked()[0]] == ["PUT", "DELETE"]
