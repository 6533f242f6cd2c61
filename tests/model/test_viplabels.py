"""The grammar of VIP labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model import viplabels
from dcosnet.model.names import usable
from dcosnet.model.net import Address, Protocol
from dcosnet.testing.strategies import frameworks, ports, protocols, vip_addresses, vip_keys, vip_labels, vip_names


@given(name=vip_names, port=ports)
def test_a_name_is_kept_as_it_is_written(name: str, port: int) -> None:
    """ "/web" and "web" are two VIPs, so the text may not be changed."""
    assert viplabels.parse(f"{name}:{port}") == viplabels.VipLabel(port, name=name)


@given(address=vip_addresses, port=ports)
def test_an_address_is_read_as_an_address(address: Address, port: int) -> None:
    """IPv6 needs no brackets: the port is after the last colon."""
    assert viplabels.parse(f"{address}:{port}") == viplabels.VipLabel(port, address=address)


@given(text=st.one_of(vip_labels, st.text()))
def test_any_text_is_a_label_or_a_value_error(text: str) -> None:
    """People write these; nothing of what they write may stop a source."""
    try:
        made = viplabels.parse(text)
    except ValueError as error:
        assert "VIP label" in str(error)  # a sentence of ours, not one that int() or ip_address() made
    else:
        assert 0 < made.port < 65536
        assert (made.name is None) != (made.address is None)


@given(text=vip_labels, protocol=protocols, framework=frameworks)
def test_the_framework_names_a_named_vip_only(text: str, protocol: Protocol, framework: str) -> None:
    """A VIP given by its address is the same VIP whoever asks for it."""
    try:
        made = viplabels.parse(text)
    except ValueError:
        return
    key = made.key(protocol, framework)
    assert (key.protocol, key.port, key.name, key.address) == (protocol, made.port, made.name, made.address)
    assert key.framework == (framework if made.name is not None else None)


@given(key=vip_keys)
def test_a_vip_name_is_one_that_dns_takes(key: viplabels.VipKey) -> None:
    """Or there is none; a VIP given by address has none."""
    name = viplabels.dns_name(key)
    if key.name is None:
        assert name is None
    elif name is not None:
        assert usable(name)
        assert name == f"{viplabels.hash_text(key)}.{viplabels.ZONE}"


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:80",
        "224.0.0.1:80",
        "239.1.2.3:80",
        "255.255.255.255:80",
        ":::80",
        "ff02::1:80",
    ],
)
def test_an_address_that_nothing_can_connect_to_is_no_vip(text: str) -> None:
    """For a task of Mesos as for a service in a file: 0.0.0.0 as a VIP would take every connection of a host."""
    with pytest.raises(ValueError, match="nothing can connect to"):
        viplabels.parse(text)


@pytest.mark.parametrize(
    "text", ["", "web", "web:", "web:0", "web:65536", "web: 80", "web:8_0", "web:٣", ":80", "/:80"]
)
def test_a_label_that_nobody_could_reach_is_refused(text: str) -> None:
    """With what was written in the sentence."""
    with pytest.raises(ValueError, match="VIP label"):
        viplabels.parse(text)


def test_a_vip_with_a_name_too_long_for_dns_has_none() -> None:
    """It is still a VIP; only its name cannot be asked for."""
    key = viplabels.parse(".".join(["a" * 63] * 4) + ":80").key(Protocol.TCP, "marathon")
    assert viplabels.dns_name(key) is None
