"""Values of the store: what is written is read."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.errors import PeerError
from dcosnet.model.drain import key_of
from dcosnet.model.net import Protocol
from dcosnet.model.provenance import Provenance
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.testing import strategies
from dcosnet.views.values import (
    decode_agent,
    decode_drain,
    decode_framework,
    decode_leader,
    decode_node,
    decode_progress,
    decode_task,
    encode_agent,
    encode_drain,
    encode_framework,
    encode_leader,
    encode_node,
    encode_progress,
    encode_task,
)

since = st.dictionaries(st.text(max_size=8), strategies.stamps, max_size=2)


@given(strategies.tasks, since)
def test_a_task_comes_back_without_its_time_of_observation(task, stamps):
    back, inherited = decode_task(encode_task(task, stamps))
    assert back == task
    assert inherited == stamps
    assert back.provenance.observed_at == 0.0


@given(strategies.tasks, st.floats(0, 2e9))
def test_the_time_of_observation_does_not_travel(task, when):
    """Or every poll would rewrite every key."""
    later = attrs.evolve(task, provenance=Provenance(task.provenance.source, task.provenance.reference, when))
    assert encode_task(later, {}) == encode_task(task, {})


@given(strategies.nodes)
def test_a_node_comes_back(node):
    assert decode_node(encode_node(node)) == node


@given(strategies.drains, strategies.progress)
def test_drains_and_progress_come_back(drain, progress):
    """What is drained is in the key alone."""
    assert decode_drain(key_of(drain.what), encode_drain(drain)) == drain
    assert decode_progress(encode_progress(progress)) == progress


@given(strategies.scheduler_frameworks, strategies.agents, strategies.leaders)
def test_frameworks_agents_and_leaders_come_back(framework, agent, leader):
    assert decode_framework(encode_framework(framework)) == framework
    assert decode_agent(encode_agent(agent)) == agent
    assert decode_leader(encode_leader(leader)) == leader


@given(strategies.tasks)
def test_fields_of_a_newer_node_are_ignored(task):
    fields = msgspec.msgpack.decode(encode_task(task, {}))
    assert decode_task(msgspec.msgpack.encode([*fields, "new"]))[0] == task


@given(strategies.nodes)
def test_a_node_of_an_older_version_is_read(node):
    """It says neither when it wrote nor what it answers."""
    fields = msgspec.msgpack.decode(encode_node(node))[:5]
    assert decode_node(msgspec.msgpack.encode(fields)) == attrs.evolve(node, updated=0.0, refresh=0)


@given(st.one_of(st.binary(), strategies.tasks.map(lambda task: encode_task(task, {}))), st.data())
def test_nonsense_is_a_peer_error(value, data):
    cut = value[: data.draw(st.integers(0, max(0, len(value) - 1)))]
    readers = (decode_task, decode_node, decode_framework, decode_agent, decode_leader, drain_of_host)
    for decode in readers:
        with pytest.raises(PeerError):
            decode(cut)


def drain_of_host(value):
    return decode_drain("drain/host/host-a", value)


def test_a_port_out_of_range_is_a_peer_error():
    task = Task(TaskId("f", "t"), "t", "shop", ip_address("10.0.0.1"), ports=(Port(Protocol.TCP, 65536),))
    with pytest.raises(PeerError, match="65536"):
        decode_task(encode_task(task, {}))


@pytest.mark.parametrize(
    ("decode", "fields", "named"),
    [
        (decode_agent, ["S0", "host", "10.0.0", ""], "10.0.0"),
        (decode_leader, [["10.0.0.1", 0], [], 0], "port 0"),
        (decode_progress, {"drain/host/a": [float("nan"), {}]}, "cannot be read"),
        (decode_progress, {"drain/host/a": [1.0, {"tcp/10.0.0.1:80": [-1, False]}]}, "cannot be read"),
        (decode_node, ["host-b", "10.0.0.1", [], "1", float("nan")], "cannot be read"),
        (decode_node, ["host-b", "10.0.0.1", [], "1", 0.0, 1e12], "cannot be read"),
        (decode_leader, [["10.0.0.1", 5050], [["nobody", 5050]], 0], "nobody"),
    ],
)
def test_what_cannot_be_an_address_is_a_peer_error(decode, fields, named):
    with pytest.raises(PeerError, match=named):
        decode(msgspec.msgpack.encode(fields))
