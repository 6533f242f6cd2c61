"""What a page says can be typed: it is typed here, and gives what the page says."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from daemon import vip_net

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations" / "mesos.rst"
# A port of the system's choice in place of the usual one.
START = "FakeMaster(reactor, cluster).start(5050)"
ANYWHERE = "master = FakeMaster(reactor, cluster); master.start(); print(master.url, flush=True)"

CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[mesos]
masters = ["{url}"]
[l4lb]
plane = "userspace"
named_vips = ["{net}.1-{net}.250"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
"""


def block(page: str, name: str) -> str:
    """The code whose first line is a comment with this name."""
    lines = iter(page[page.index(f"   # {name}\n") :].splitlines())
    body = []
    for line in lines:
        if line and not line.startswith("   "):
            break
        body.append(line)
    return textwrap.dedent("\n".join(body))


@pytest.fixture
def cluster_of_the_page(tmp_path):
    """The page's ten lines in a process of their own; its master's URL."""
    text = block(PAGE.read_text(), "cluster.py")
    assert START in text
    (tmp_path / "cluster.py").write_text(text.replace(START, ANYWHERE))
    command = [sys.executable, str(tmp_path / "cluster.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_ten_lines_of_a_cluster_give_what_the_page_shows(cluster_of_the_page, make_daemon):
    """The first thing that somebody without a cluster tries; also, what is refused is told with its reason."""
    daemon = make_daemon(CONFIG.format(url=cluster_of_the_page, net=vip_net()))
    daemon.start()
    vip = "shop.marathon.l4lb.thisdcos.directory:8000"
    daemon.until("/v1/vips", lambda vips: [each["vip"] for each in vips] == [vip])
    (task,) = daemon.get("/v1/tasks")[1]
    label, port = task["problems"]
    assert label["label"] == "shop"
    (source,) = daemon.get("/v1/sources")[1]
    assert {problem["reason"] for problem in source["problems"]} == {label["reason"], port["reason"]}
    tasks, sources = run_command(daemon, "tasks"), run_command(daemon, "sources")
    assert (tasks.returncode, sources.returncode) == (0, 1)
    for done in (tasks, sources):
        assert all(problem["reason"] in done.stderr for problem in (label, port))
        assert len(done.stderr.splitlines()) == 2
    shown = [*tasks.stdout.splitlines(), f"shop of marathon: {label['reason']}", port["reason"].rpartition(": ")[2]]
    assert [line for line in shown if line not in PAGE.read_text()] == []


def run_command(daemon, verb):
    """The command as a person types it."""
    dcosnet = str(Path(sys.executable).with_name("dcosnet"))
    return subprocess.run(
        [dcosnet, "-c", str(daemon.config), verb], capture_output=True, text=True, timeout=60, check=False
    )
