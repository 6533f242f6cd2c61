"""Which requests over TCP come from a browser led astray."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from dcosnet.model.node import Node
from dcosnet.ops.guard import foreign_write, host_known, own_names

NAMES = own_names(Node("Host-A.example", ip_address("10.0.0.1")))


@pytest.mark.parametrize(
    "host",
    [
        None, "localhost", "LOCALHOST:62080", "127.0.0.1:62080", "10.9.9.9", "[::1]:62080", "[fd00::1]",
        "host-a.example", "Host-A.Example.:80",
    ],
)  # fmt: skip
def test_addresses_and_names_of_ours_are_known(host: str | None) -> None:
    """A name that was rebound is never an address."""
    assert host_known(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example:80",
        "127.0.0.1.evil.example",
        "[evil]:80",
        "[",
        "a@127.0.0.1",
        "[::1]evil.example",
        "[::1",
        "127.0.0.1:80:90",
        "localhost:x",
    ],
)
def test_other_names_are_not_known(host: str) -> None:
    """That is what a rebound name looks like."""
    assert not host_known(host, NAMES)


@pytest.mark.parametrize(
    ("method", "site", "foreign"),
    [
        ("POST", "cross-site", True), ("DELETE", "Cross-Site", True), ("POST", "same-origin", False),
        ("POST", None, False), ("GET", "cross-site", False), ("HEAD", "cross-site", False),
    ],
)  # fmt: skip
def test_only_writes_of_other_sites_are_foreign(method: str, site: str | None, foreign: bool) -> None:
    """Programs send no such header, and may write."""
    assert foreign_write(method, site) is foreign
