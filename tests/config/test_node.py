"""The table [node]."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from dcosnet.config.merge import read
from dcosnet.config.node import NodeSettings
from dcosnet.config.structure import structure
from dcosnet.errors import ConfigErrors


def test_node_is_made_without_a_table() -> None:
    """Nothing needs to be configured for a node to have a state directory."""
    settings = structure(read(None, {}, []), {"node": NodeSettings}, always=("node",))["node"]
    assert settings == NodeSettings(state_dir=Path("/var/lib/dcosnet"))


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\tb"])
def test_node_name_that_cannot_stand_in_a_key_is_refused(name: str) -> None:
    """The name is part of keys in the store and of links."""
    with pytest.raises(ConfigErrors, match="not usable"):
        structure(
            read(None, {"DCOSNET_NODE__NAME": f'"{name}"' if "\t" not in name else name}, []), {"node": NodeSettings}
        )


def test_a_name_too_long_for_a_key_is_refused() -> None:
    """Found when the node's own key is written, it would be a traceback."""
    assert NodeSettings(name="x" * 253).name == "x" * 253
    for name in ("x" * 254, "é" * 127):
        with pytest.raises(ValueError, match="longer than 253 bytes"):
            NodeSettings(name=name)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
def test_an_address_that_nobody_can_connect_to_is_refused(text: str) -> None:
    """Services without an address get the node's, and DNS would tell it."""
    with pytest.raises(ValueError, match="nobody can connect to"):
        NodeSettings(address=ip_address(text))
    with pytest.raises(ValueError, match="nobody can connect to"):
        NodeSettings(public_addresses=(ip_address(text),))
