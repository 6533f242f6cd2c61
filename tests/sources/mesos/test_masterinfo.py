"""What masters leave in ZooKeeper, in all forms that there were."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.sources.mesos.masterinfo import Master, ZooKeeper, elected, parse_zk, read_json, read_protobuf


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("zk://h1:2181/mesos", ZooKeeper("h1:2181", "/mesos")),
        ("zk://h1:2181,h2:2182,[::1]:2183/a/b/", ZooKeeper("h1:2181,h2:2182,[::1]:2183", "/a/b")),
        ("zk://user:p@ss:word@h1/mesos", ZooKeeper("h1", "/mesos", "user:p@ss:word")),
    ],
)
def test_an_address_is_read(text, wanted):
    """A password may hold what separates elsewhere."""
    assert parse_zk(text) == wanted


@pytest.mark.parametrize(
    "text", ["http://h1/mesos", "h1:2181", "zk://h1:2181", "zk://h1:2181/", "zk://u@h1/mesos", "zk://u:secret@ h/x"]
)
def test_what_is_no_address_is_refused_without_its_password(text):
    """Errors are printed; passwords are not."""
    with pytest.raises(ValueError) as raised:
        parse_zk(text)
    assert "secret" not in str(raised.value)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


LOCAL = 16777343  # 127.0.0.1 as x86 reads what is in network order


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (field(1, "id") + field(2, LOCAL) + field(3, 5051), Master("127.0.0.1", 5051)),
        (field(2, LOCAL), Master("127.0.0.1", 5050)),
        (field(2, LOCAL) + field(4, "master@10.0.0.1:5052"), Master("10.0.0.1", 5052)),
        (field(4, "master@[fd01::1]:5052"), Master("fd01::1", 5052)),
        (field(5, "master-1") + field(3, 5053), Master("master-1", 5053)),
        (
            field(2, LOCAL) + field(7, field(1, "m") + field(2, "10.0.0.9") + field(3, 5054)) + field(9, b"\x08\x01"),
            Master("10.0.0.9", 5054),
        ),
        (field(2, LOCAL) + varint(20 << 3 | 1) + bytes(8) + varint(21 << 3 | 5) + bytes(4), Master("127.0.0.1", 5050)),
    ],
)
def test_the_older_form_is_read(data, wanted):
    """Fields that came later win; fields that are not known are passed over."""
    assert read_protobuf(data) == wanted


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_master_or_a_value_error(data):
    """Somebody else's node below the path costs itself only."""
    for read in (read_protobuf, read_json):
        with contextlib.suppress(ValueError):
            assert isinstance(read(data), Master)


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"address": {"ip": "10.0.0.1", "port": 5055}, "ip": LOCAL, "port": 1}, Master("10.0.0.1", 5055)),
        ({"ip": LOCAL, "port": 5050}, Master("127.0.0.1", 5050)),
        ({"pid": "master@10.0.0.2:5050", "ip": LOCAL}, Master("10.0.0.2", 5050)),
        ({"hostname": "master-1"}, Master("master-1", 5050)),
    ],
)
def test_the_json_form_is_read(document, wanted):
    assert read_json(json.dumps(document).encode()) == wanted


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"address": 5}', b'{"hostname": "m", "port": 0}', b"\xff"])
def test_what_tells_no_address_is_refused(data):
    with pytest.raises(ValueError):
        read_json(data)


def info(host):
    return json.dumps({"hostname": host}).encode()


def test_the_lowest_number_leads_and_is_the_epoch():
    """Whatever the order of the listing; each election has a higher number than all before it."""
    found = elected({"json.info_0000000012": info("b"), "json.info_0000000007": info("a"), "log_replicas": b""})
    assert found.leader == Master("a", 5050)
    assert found.masters == (Master("a", 5050), Master("b", 5050))
    assert found.epoch == 8


def test_the_older_form_counts_only_where_there_is_no_newer_one():
    """Masters of 0.23 wrote both."""
    old = field(5, "old")
    assert elected({"info_1": old, "json.info_2": info("new")}).leader == Master("new", 5050)
    assert elected({"info_1": old}).leader == Master("old", 5050)


def test_a_leader_that_cannot_be_read_makes_nobody_else_lead():
    """The next in line does not lead, and would be asked in vain."""
    found = elected({"json.info_1": b"{", "json.info_2": info("b")})
    assert found.leader is None
    assert found.masters == (Master("b", 5050),)
    assert [problem.reference for problem in found.problems] == ["json.info_1"]
