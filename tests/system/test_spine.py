"""What a new user does: real dig, curl, nginx and the `dcosnet` command, beside a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import free_port, vip_net
from servers import write_knot

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
WEB = "web.shop.l4lb.thisdcos.directory"

CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[files]
path = "services.d"
[register]
[l4lb]
plane = "userspace"
named_vips = ["{net}.1-{net}.250"]
[dns]
listen = ["127.0.0.1:0"]
upstreams = [{upstreams}]
[ops]
listen = ["tcp:0:interface=127.0.0.1", "unix:api.sock:mode=600"]
"""


def config(upstreams=""):
    return CONFIG.format(net=vip_net(), upstreams=upstreams)


def service(port, instance, vip="/web:8000", check=""):
    return (
        f'[[service]]\nname = "web"\ninstance = "{instance}"\ngroup = "shop"\naddress = "127.0.0.1"\n'
        f'ports = [{{ port = {port}, vip = "{vip}" }}]\n{check}\n'
    )


@pytest.fixture
def dig(require_program):
    program = require_program("dig")

    def ask(daemon, *question):
        address, port = daemon.dns
        argv = [program, f"@{address}", "-p", port, "+tries=1", "+time=5", *question]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout

    return ask


@pytest.fixture
def curl(require_program):
    program = require_program("curl")

    def get(url):
        return subprocess.run(
            [program, "-s", "-S", "--max-time", "10", url], capture_output=True, text=True, timeout=30, check=False
        )

    return get


def test_real_web_servers_behind_a_name(make_daemon, dig, curl, nginx):
    """Two nginx servers get a name and a VIP; one dies unseen; when both are gone so is the name."""
    first, second = nginx("one"), nginx("two")
    daemon = make_daemon(config())
    check = 'check = { http = "/", interval = "250ms", timeout = "1s" }'
    (daemon.services / "web.toml").write_text(
        service(first.port, "1", check=check) + service(second.port, "2", check=check)
    )
    daemon.start()
    daemon.ready()

    def healthy(tasks):
        return [task["health"] for task in tasks] == ["healthy", "healthy"]

    daemon.until("/v1/tasks", healthy)
    daemon.wait(lambda: dig(daemon, WEB, "+short").strip() != "")
    vip = dig(daemon, WEB, "+short").strip()
    assert vip.startswith(vip_net())
    assert {curl(f"http://{vip}:8000/").stdout for _ in range(12)} == {"one\n", "two\n"}

    first.process.terminate()
    first.process.wait(20)
    assert {curl(f"http://{vip}:8000/").stdout for _ in range(12)} == {"two\n"}, "the dead backend was noticed"
    daemon.until("/v1/tasks", lambda tasks: sorted(task["health"] for task in tasks) == ["healthy", "unhealthy"])

    (daemon.services / "web.toml").unlink()
    daemon.wait(lambda: "status: NXDOMAIN" in dig(daemon, WEB))
    assert curl(f"http://{vip}:8000/").returncode == 7, "nobody listens any more"


def test_editing_the_file_moves_name_and_connection(make_daemon, dig, curl, nginx):
    port = nginx("one").port
    daemon = make_daemon(config())
    (daemon.services / "web.toml").write_text(service(port, "1"))
    daemon.start()
    daemon.wait(lambda: dig(daemon, WEB, "+short").strip() != "")
    (daemon.services / "web.toml").write_text(service(port, "1", vip="/other:8000"))
    other = "other.shop.l4lb.thisdcos.directory"
    daemon.wait(lambda: dig(daemon, other, "+short").strip() != "")
    daemon.wait(lambda: "status: NXDOMAIN" in dig(daemon, WEB))
    assert curl(f"http://{dig(daemon, other, '+short').strip()}:8000/").stdout == "one\n"


def test_a_kill_loses_no_registration(make_daemon, dig, nginx):
    """What was acknowledged is there after the daemon was killed and started again."""
    port = nginx("one").port
    daemon = make_daemon(config())
    daemon.start()
    daemon.ready()
    run(
        daemon,
        "register",
        "web",
        "--group",
        "shop",
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
        "--vip",
        "/web:8000",
    )
    daemon.wait(lambda: dig(daemon, WEB, "+short").strip() != "")
    daemon.kill()
    daemon.start()
    daemon.wait(lambda: dig(daemon, WEB, "+short").strip() != "")
    run(daemon, "deregister", "web", "--group", "shop")
    daemon.wait(lambda: "status: NXDOMAIN" in dig(daemon, WEB))


def run(daemon, *arguments, code=0):
    """The `dcosnet` command against this daemon."""
    argv = [str(Path(sys.executable).with_name("dcosnet")), "--api", f"unix:{daemon.socket}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_registration_lives_with_its_command(make_daemon, dig, nginx, tmp_path):
    port = nginx("one").port
    daemon = make_daemon(config())
    daemon.start()
    daemon.ready()
    stop = tmp_path / "stop"
    os.mkfifo(stop)
    argv = [
        *(str(Path(sys.executable).with_name("dcosnet")), "--api", f"unix:{daemon.socket}", "register", "web"),
        *("--group", "shop", "--address", "127.0.0.1", "--port", str(port), "--vip", "/web:8000"),
        *("--", "sh", "-c", f"read line < {stop}; exit 7"),
    ]
    with subprocess.Popen(argv) as command:
        daemon.wait(lambda: dig(daemon, WEB, "+short").strip() != "")
        stop.write_text("now\n")
        assert command.wait(30) == 7
    daemon.wait(lambda: "status: NXDOMAIN" in dig(daemon, WEB))


def test_the_command_shows_the_node(make_daemon, nginx):
    port = nginx("one").port
    daemon = make_daemon(config())
    (daemon.services / "web.toml").write_text(service(port, "1"))
    daemon.start()
    daemon.until("/v1/vips", bool)
    daemon.until("/v1/records", lambda rows: any(row["name"].rstrip(".") == WEB for row in rows))
    assert "host-a" in run(daemon, "status")
    assert WEB in run(daemon, "vips")
    assert WEB in run(daemon, "records", "web.*")
    assert "web" in run(daemon, "tasks")
    assert "files" in run(daemon, "sources")
    assert vip_net() in run(daemon, "resolve", WEB)
    run(daemon, "resolve", f"nothing.{WEB}", code=1)
    (vip,) = json.loads(run(daemon, "-o", "json", "vips"))
    assert vip["vip"] == f"{WEB}:8000"
    assert vip["backend"][0]["port"] == port


def test_names_of_others_are_asked_of_the_upstream(make_daemon, dig, require_program, spawn, tmp_path):
    """Everything that is not ours goes to the configured upstream, here a real Knot server."""
    knotd = require_program("knotd")
    port = free_port()
    records = "ns 60 A 127.0.0.1\nwww 60 A 192.0.2.80\n" + "".join(f"big 60 TXT {'x' * 200}{i}\n" for i in range(20))
    spawn(knotd, "-c", write_knot(tmp_path, port, records))
    daemon = make_daemon(config(upstreams=f'"127.0.0.1:{port}"'))
    daemon.start()
    daemon.ready()
    daemon.wait(lambda: dig(daemon, "www.example", "+short") == "192.0.2.80\n")
    assert "status: NXDOMAIN" in dig(daemon, "no.example")
    assert dig(daemon, "big.example", "TXT", "+short").count("\n") == 20, (
        "the truncated reply was not asked again by TCP"
    )


def test_dig_sees_correct_answers(make_daemon, dig):
    daemon = make_daemon(config())
    daemon.start()
    daemon.ready()
    ready = dig(daemon, "ready.spartan", "ANY")
    assert "127.0.0.1" in ready
    assert " aa " in ready
    nodata = dig(daemon, "localhost", "AAAA")
    assert "status: NOERROR" in nodata
    assert "ANSWER: 0, AUTHORITY: 1" in nodata
    assert "status: NXDOMAIN" in dig(daemon, "nothing.localhost")
    assert "status: BADVERS" in dig(daemon, "localhost", "+edns=1", "+noednsnegotiation")
    assert "127.0.0.1" in dig(daemon, "localhost", "+tcp", "+short")
    assert "status: REFUSED" in dig(daemon, "www.example"), "nobody is configured to be asked"


def test_make_run_prints_lines_that_work(make_daemon, dig, curl, tmp_path):
    """The demonstration, with its own files, on other ports than a demonstration that may run here."""
    shutil.copytree(ROOT / "etc", tmp_path / "etc")
    (first, second) = free_port(), free_port()
    services = tmp_path / "etc" / "demo.d" / "demo.toml"
    services.write_text(services.read_text().replace("8001", str(first)).replace("8002", str(second)))
    daemon = make_daemon("")
    daemon.config = tmp_path / "etc" / "demo.toml"
    daemon.socket = tmp_path / ".demo" / "api.sock"
    daemon.config.write_text(
        daemon.config.read_text()
        .replace("127.0.0.1:8053", "127.0.0.1:0")
        .replace("tcp:62080", "tcp:0")
        .replace("127.11.0.0-127.11.255.254", f"{vip_net()}.1-{vip_net()}.250")
        .replace("127.0.0.1:8001", f"127.0.0.1:{first}")
        .replace("127.0.0.1:8002", f"127.0.0.1:{second}")
    )
    daemon.start()
    daemon.ready()
    log = tmp_path / "log"
    daemon.wait(lambda: "Control-C" in log.read_text())
    lines = [line.strip() for line in log.read_text().splitlines()]
    asked = next(line for line in lines if line.startswith("dig "))
    answer = subprocess.run(asked.split(), capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    got = next(line for line in lines if line.startswith("curl ")).split()[-1]
    assert f"//{answer}:" in got
    assert curl(got).stdout in {f"hello from 127.0.0.1:{first}\n", f"hello from 127.0.0.1:{second}\n"}
    page = next(line for line in lines if line.startswith("http://"))
    assert WEB in curl(page).stdout
