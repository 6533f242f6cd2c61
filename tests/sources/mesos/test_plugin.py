"""What `[mesos]` may say, and what it means."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from twisted.internet.task import Clock

from dcosnet.config.fields import Duration, Secret
from dcosnet.errors import ConfigError
from dcosnet.model.net import parse_address
from dcosnet.model.node import Node
from dcosnet.sources.mesos.plugin import Settings, make_part


class Toolbox:
    reactor = Clock()
    rng = Random(1)
    node = Node("host-a", parse_address("10.0.0.1"))


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"agent": "127.0.0.1:5051"}, "mesos.agent"),
        ({"masters": ("http://10.0.0.1:5050/api",)}, "mesos.masters"),
        ({"zk": Secret("http://h1:2181")}, "mesos.zk"),
        ({"cert": Path("/c.pem")}, "mesos.key"),
        ({"key": Path("/c.key")}, "mesos.cert"),
        ({"token_file": Path("/t"), "principal": "p"}, "mesos.token_file"),
        ({"secret_file": Path("/s")}, "mesos.principal"),
        ({"poll": Duration(0.1)}, "mesos.poll"),
        ({"refresh": Duration(0.5)}, "mesos.refresh"),
    ],
)
def test_what_cannot_be_met_is_told_with_its_key(settings, path):
    with pytest.raises(ConfigError) as raised:
        make_part(Settings(**settings), Toolbox())
    assert raised.value.path == path


def test_an_empty_table_means_the_local_agent():
    """And masters alone mean no agent: a master's host has none."""
    assert make_part(Settings(), Toolbox()).describe() == {"agent": "http://127.0.0.1:5051"}
    described = make_part(Settings(masters=("http://10.0.0.1:5050/",)), Toolbox()).describe()
    assert described == {"masters": ["http://10.0.0.1:5050"], "following": None}


def test_before_anything_was_heard_the_reason_is_told():
    part = make_part(Settings(masters=("http://10.0.0.1:5050",), agent="http://10.0.0.1:5051"), Toolbox())
    assert part.ready() == "the agent http://10.0.0.1:5051 is not heard yet"
