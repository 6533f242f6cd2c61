"""VIP labels, their names, hashes and addresses against those of dcos-net."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dcosnet.model import viplabels
from dcosnet.model.addressing import AddressRange
from dcosnet.model.hashing import phash2
from dcosnet.model.net import Address, Protocol, parse_address
from dcosnet.model.vip import VipKey

# Where dcos-net makes a VIP that nobody can reach, we refuse the label.
REFUSED_HERE = {"foo:65536", ":80"}


@pytest.fixture(scope="module")
def keys(fixtures_dir: Path) -> Any:
    return json.loads((fixtures_dir / "l4lb" / "vip-keys.expected.json").read_text())


@pytest.fixture(scope="module")
def vips(fixtures_dir: Path) -> Any:
    return json.loads((fixtures_dir / "l4lb" / "vip-addresses.expected.json").read_text())


def read(text: str, protocol: Protocol, framework: str) -> VipKey | None:
    try:
        return viplabels.parse(text).key(protocol, framework)
    except ValueError:
        return None


def expected_key(case: dict[str, Any]) -> VipKey | None:
    key = case["key"]
    if key is None or case["label"] in REFUSED_HERE:
        return None
    return VipKey(
        Protocol(key["protocol"]),
        key["port"],
        name=key.get("name"),
        framework=key.get("framework"),
        address=parse_address(key["ip"]) if "ip" in key else None,
    )


def named(case: dict[str, Any]) -> VipKey:
    return VipKey(Protocol.TCP, 80, name=case["label"], framework=case["framework"])


def range_of(first: str, last: str) -> AddressRange:
    return AddressRange(parse_address(first), parse_address(last))


def test_labels_are_read_as_dcos_net_reads_them(keys: Any) -> None:
    """But for the two kinds that are refused here."""
    made = {case["label"]: read(case["label"], Protocol(keys["protocol"]), keys["framework"]) for case in keys["cases"]}
    assert made == {case["label"]: expected_key(case) for case in keys["cases"]}


def test_what_is_refused_here_was_a_vip_there(keys: Any) -> None:
    """So that the list of deviations is exact."""
    theirs = {case["label"] for case in keys["cases"] if case["key"] is not None}
    assert theirs >= REFUSED_HERE


def test_names_and_hashed_texts_are_those_of_dcos_net(vips: Any) -> None:
    """An empty label, which no label of ours can have, leaves its side out instead of a leading dot."""
    for case in vips["addresses"]:
        key = named(case)
        assert viplabels.hash_text(key) == case["hash_text"].lstrip("."), case
        assert viplabels.dns_name(key) == case["dns_name"].lstrip("."), case


def test_first_choices_are_those_of_dcos_net(vips: Any) -> None:
    """In each of its ranges: a name keeps the address it had."""
    for case in vips["addresses"]:
        for name, (first, last) in vips["ranges"].items():
            assert range_of(first, last).start(case["hash_text"]) == parse_address(case[name]), (case, name)


def test_collisions_move_on_as_in_dcos_net(vips: Any) -> None:
    """One after another, round the end of the range, until there is nothing left."""
    for sequence in vips["sequences"]:
        range_ = range_of(sequence["min"], sequence["max"])
        taken: set[Address] = set()
        for case in sequence["assignments"]:
            address = range_.free(viplabels.hash_text(named(case)), taken)
            assert address == (parse_address(case["address"]) if case["address"] else None), case
            taken |= {address} if address else set()


def test_phash2_is_erlangs(vips: Any) -> None:
    """Bit by bit, with both limits."""
    assert vips["phash2"]
    for case in vips["phash2"]:
        data = bytes.fromhex(case["bytes_hex"])
        assert phash2(data) == case["phash2_range_2_32"], case
        assert phash2(data, 1 << 27) == case["phash2_range_2_27"], case
