"""Own facts become own keys."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from dcosnet.model.facts import Facts
from dcosnet.model.net import Protocol
from dcosnet.model.provenance import Provenance
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.testing import strategies
from dcosnet.views.local import LocalKeys
from dcosnet.views.values import decode_task, encode_task

WEB = Task(
    TaskId("f", "web"), "web", "shop", ip_address("10.0.0.1"), ports=(Port(Protocol.TCP, 80, vips=("/web:80", "bad")),)
)


def young(name, framework):
    return None


def test_a_poll_that_tells_nothing_new_writes_nothing():
    keys = LocalKeys(("files",))
    assert keys.update("files", Facts({WEB.id: WEB}), young) == {WEB.id.key: encode_task(WEB, {})}
    again = attrs.evolve(WEB, provenance=Provenance("", "", 99.0))
    assert keys.update("files", Facts({WEB.id: again}), young) == {}


def test_what_a_source_no_longer_tells_is_deleted():
    keys = LocalKeys(("files",))
    keys.update("files", Facts({WEB.id: WEB}), young)
    assert keys.update("files", Facts(), young) == {WEB.id.key: None}


def test_the_first_source_holds_a_task_that_two_tell_of():
    other = attrs.evolve(WEB, weight=7)
    keys = LocalKeys(("first", "second"))
    assert keys.update("second", Facts({WEB.id: other}), young) == {WEB.id.key: encode_task(other, {})}
    assert keys.update("first", Facts({WEB.id: WEB}), young) == {WEB.id.key: encode_task(WEB, {})}
    assert keys.update("first", Facts(), young) == {WEB.id.key: encode_task(other, {})}


def test_absence_is_not_told_before_every_source_was_read():
    keys = LocalKeys(("files", "mesos"))
    assert keys.unsynced() == "source files has not been read yet"
    keys.update("files", Facts(), young)
    assert keys.unsynced() == "source mesos has not been read yet"
    keys.update("mesos", Facts(unsynced=("agent 10.0.0.2 was not heard",)), young)
    assert keys.unsynced() == "source mesos: agent 10.0.0.2 was not heard"
    keys.update("mesos", Facts(), young)
    assert keys.unsynced() is None


def test_a_new_task_inherits_the_age_of_its_vip_name():
    old = Stamp(5, 0, "host-a")
    changes = LocalKeys(("files",)).update(
        "files", Facts({WEB.id: WEB}), lambda name, framework: old if (name, framework) == ("/web", "shop") else None
    )
    assert decode_task(changes[WEB.id.key])[1] == {"/web": old}


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), strategies.facts), max_size=4))
@settings(max_examples=40)
def test_applying_the_changes_leads_to_what_the_sources_say(steps):
    keys, store, last = LocalKeys(("a", "b")), {}, {}
    for source, facts in steps:
        last[source] = facts
        for key, value in keys.update(source, facts, young).items():
            if value is None:
                del store[key]
            else:
                store[key] = value
        desired = {**last.get("b", Facts()).tasks, **last.get("a", Facts()).tasks}
        assert {decode_task(value)[0].id: decode_task(value)[0] for value in store.values()} == desired
