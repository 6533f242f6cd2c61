"""The table [node]."""

from __future__ import annotations

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
