"""The addresses of named VIPs, the zone and the listeners are those of dcos-net, by its own recorded cases."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from dcosnet.l4lb.addresses import Addresses, Claim, VipName
from dcosnet.l4lb.desired import Desired
from dcosnet.l4lb.listener import Listener
from dcosnet.l4lb.plugin import NAMED_VIPS
from dcosnet.l4lb.zone import VipZone
from dcosnet.model.addressing import AddressRange
from dcosnet.model.net import Protocol
from dcosnet.model.stamp import Stamp
from dcosnet.model.vip import Backend, Vip, VipKey
from dcosnet.model.viplabels import dns_name, hash_text
from dcosnet.model.zone import RecordType


@pytest.fixture
def recorded(fixtures_dir: Path) -> Any:
    return json.loads((fixtures_dir / "l4lb" / "vip-addresses.expected.json").read_text())


def key(label: str, framework: str) -> VipKey:
    return VipKey(Protocol.TCP, 80, name=label, framework=framework)


def give(addresses: Addresses, label: str, framework: str, order: int) -> str | None:
    name = VipName(label, framework)
    addresses.update({name: Claim(hash_text(key(label, framework)), Stamp(order, 0, "n"))}, ())
    found = addresses.given.get(name)
    return None if found is None else str(found)


def test_a_name_alone_gets_the_address_that_dcos_net_gives_it(recorded: Any) -> None:
    """So that a cluster that moves over keeps its VIPs where they are."""
    compared = 0
    for case in recorded["addresses"]:
        if not hash_text(key(case["label"], "")):
            continue  # a name of punctuation only, which `viplabels.parse` refuses
        for range_name, (first, last) in recorded["ranges"].items():
            fresh = Addresses(AddressRange(ip_address(first), ip_address(last)))
            assert give(fresh, case["label"], case["framework"], 1) == case[range_name], case
            compared += 1
        assert dns_name(key(case["label"], case["framework"])) == case["dns_name"]
    assert compared > 40


def test_names_that_collide_move_on_in_the_order_of_their_age(recorded: Any) -> None:
    """The older keeps its address; where none is left the name has none."""
    for sequence in recorded["sequences"]:
        table = Addresses(AddressRange(ip_address(sequence["min"]), ip_address(sequence["max"])))
        for order, one in enumerate(sequence["assignments"]):
            assert give(table, one["label"], one["framework"], order) == one["address"], one


def vips_of(case: Any) -> dict[str, Vip]:
    """A recorded table; names are as old as their place in the order of protocol and name."""
    rows = sorted(case["vips"], key=lambda row: (row["protocol"], row.get("name", "")))
    out = {}
    for order, row in enumerate(rows):
        vip_key = VipKey(
            Protocol(row["protocol"]),
            row["port"],
            name=row.get("name"),
            framework=row.get("framework"),
            address=ip_address(row["ip"]) if "ip" in row else None,
        )
        backends = tuple(
            Backend(ip_address(one["ip"]), one["port"], ip_address(one["agent_ip"]), one["weight"])
            for one in row["backends"]
        )
        out[str(vip_key)] = Vip(vip_key, backends, Stamp(order, 0, "n") if "name" in row else None)
    return out


def test_recorded_tables_become_the_recorded_listeners_and_names(fixtures_dir: Path) -> None:
    cases = json.loads((fixtures_dir / "l4lb" / "poller.expected.json").read_text())["cases"]
    assert cases
    for case in cases:
        desired = Desired(NAMED_VIPS)
        desired.update(vips_of(case), None)
        expected = {
            Listener(Protocol(one["protocol"]), ip_address(one["ip"]), one["port"]): {
                (back["agent_ip"], back["ip"], back["port"], back["weight"]) for back in one["backends"]
            }
            for one in case["virtual_services"]
        }
        given = {
            listener: {(str(b.agent), str(b.address), b.port, b.weight) for b in service.backends}
            for listener, service in desired.services.items()
        }
        assert given == expected, case["name"]
        zone = VipZone()
        zone.take_applied(desired.services, None)
        names = {
            (name, RecordType(record.type).name, str(record.data), record.ttl)
            for name, found in zone.zone.records.items()
            for record in found
            if name != zone.zone.apex
        }
        assert names == {
            (one["name"], one["type"], value, 5) for one in case["vip_records"] for value in one["values"]
        }, case["name"]
