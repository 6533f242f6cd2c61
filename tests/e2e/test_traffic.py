"""A real daemon, connections through it, and what it then says of them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import HOST, PATIENCE, Daemon, named_vips
from echo import Echo
from prometheus_client.parser import text_string_to_metric_families

NAME = "web.shop.l4lb.thisdcos.directory:8000"


@pytest.fixture
def backends() -> Iterator[list[Echo]]:
    made = [Echo(), Echo()]
    yield made
    for one in made:
        one.close()


def serve(daemon: Daemon, *ports: int) -> None:
    """Write the services, each backend with its port, as an editor does."""
    text = "".join(
        f'[[service]]\nname = "web"\ngroup = "shop"\ninstance = "{port}"\naddress = "127.0.0.1"\n'
        f'ports = [{{ port = {port}, vip = "/web:8000" }}]\n'
        for port in ports
    )
    daemon.write("web.toml", text)


def detail(daemon: Daemon, *ports: int) -> dict:
    """The VIP, as soon as it is served with just these backends."""
    (vip,) = daemon.until(
        "/v1/vips?detail",
        lambda vips: (
            [
                (vip["state"], sorted(one["port"] for one in vip["backend"]), all(one["use"] for one in vip["backend"]))
                for vip in vips
            ]
            == [("served", sorted(ports), True)]
        ),
    )
    return vip


def talk(vip: dict, times: int) -> None:
    """Connections one after the other, each with three bytes there and back."""
    for _ in range(times):
        with socket.create_connection((vip["address"][0], 8000), PATIENCE) as client:
            client.sendall(b"abc")
            assert client.recv(100) == b"abc"


def scrape(daemon: Daemon, path: str = "/metrics") -> dict[str, dict[frozenset, float]]:
    """All samples by name and labels; a sample that comes twice is an error, as it is to Prometheus."""
    status, text = daemon.get(path)
    assert status == 200
    out: dict[str, dict[frozenset, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in out.setdefault(sample.name, {}), sample
            out[sample.name][labels] = sample.value
    return out


def counters(samples: dict[str, dict[frozenset, float]], prefix: str) -> dict[tuple[str, frozenset], float]:
    return {
        (name, labels): value
        for name, some in samples.items()
        if name.startswith(prefix) and not name.endswith(("_active", "_untold"))
        for labels, value in some.items()
    }


def test_connections_are_seen_and_counters_do_not_go_back_when_backends_go(make_daemon, backends) -> None:
    """In /v1/vips?detail, /metrics, dcos-net's registry and the command."""
    first, second = backends
    daemon = make_daemon(HOST + named_vips())
    serve(daemon, first.port, second.port)
    daemon.start()
    daemon.ready()
    vip = detail(daemon, first.port, second.port)
    assert vip["total"]["connections"] == 0
    talk(vip, 20)
    with socket.create_connection((vip["address"][0], 8000), PATIENCE) as client:
        client.sendall(b"12345")
        assert client.recv(100) == b"12345"
        # An open connection shows with its bytes.
        (vip,) = daemon.until("/v1/vips?detail", lambda vips: vips[0]["total"]["active"] == 1)
        assert vip["total"]["connections"] == 21
        assert vip["total"]["bytes"] == {"to_backend": 65, "to_client": 65}
        counts = [one["counts"] for one in vip["backend"]]
        assert sum(one["connections"] for one in counts) == 21
        assert sum(sum(one["connect"]["counts"]) for one in counts) == 21
    daemon.until("/v1/vips?detail", lambda vips: vips[0]["total"]["active"] == 0)

    before = scrape(daemon)
    connections = before["dcosnet_l4lb_backend_connections_total"]
    assert sum(connections.values()) == 21
    assert before["dcosnet_l4lb_vip_connections_total"] == {frozenset({("vip", NAME), ("protocol", "tcp")}): 21}
    assert sum(before["dcosnet_l4lb_backend_connect_seconds_count"].values()) == 21

    second.close()
    serve(daemon, first.port)
    vip = detail(daemon, first.port)
    assert vip["total"]["connections"] == 21
    talk(vip, 3)
    after = scrape(daemon)
    was, now = counters(before, "dcosnet_l4lb_vip_"), counters(after, "dcosnet_l4lb_vip_")
    assert was.keys() == now.keys()
    assert all(now[one] >= was[one] for one in was), (was, now)
    assert len(after["dcosnet_l4lb_backend_connections_total"]) == 1
    assert all(
        after["dcosnet_l4lb_backend_connections_total"][labels] == connections[labels] + 3
        for labels in after["dcosnet_l4lb_backend_connections_total"]
    )

    registry = scrape(daemon, "/v1/metrics/l4lb")
    assert "\nmm_connect_successes{" in daemon.get("/v1/metrics/l4lb")[1]
    (labels,) = registry["mm_connect_successes_total"]  # this parser gives each counter the suffix
    assert dict(labels) == {
        "vip": f"{vip['address'][0]}_8000",
        "backend": f"127.0.0.1_{first.port}",
        "name": NAME.partition(":")[0],
    }
    assert registry["local_vips"] == {frozenset(): 1}
    assert registry["vips_duration_seconds_count"][frozenset()] > 0

    program = str(Path(sys.executable).with_name("dcosnet"))
    command = [program, "--api", f"unix:{daemon.socket}", "-o", "json", "vips", "web.*"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)[0]["total"]["connections"] == 24
