"""The zone follows what listens, whatever comes together."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.zone import VipZone
from dcosnet.model.net import Protocol
from dcosnet.model.vip import VipKey
from dcosnet.reconcile.diff import changed_keys

LISTENERS = [
    Listener(Protocol.TCP, ip_address(address), port)
    for address in ("127.11.0.1", "127.11.0.2", "fd01:c::1")
    for port in (80, 81)
]
SERVICES = st.sampled_from(["web.l4lb", "db.l4lb", None]).map(
    lambda name: Service(VipKey(Protocol.TCP, 80, name="/web", framework="shop"), (), name)
)
APPLIED = st.dictionaries(st.sampled_from(LISTENERS), SERVICES)


@given(st.lists(APPLIED, max_size=6))
def test_taking_changed_listeners_equals_taking_all(steps) -> None:
    zone, before = VipZone(), {}
    for applied in steps:
        records = zone.zone.records
        names = zone.take_applied(applied, changed_keys(before, applied))
        whole = VipZone()
        whole.take_applied(applied, None)
        assert zone.zone == whole.zone
        assert names == changed_keys(records, zone.zone.records)
        before = applied


def test_a_name_has_the_addresses_that_listen_and_no_other() -> None:
    zone = VipZone()
    service = Service(VipKey(Protocol.TCP, 80, name="/web", framework="shop"), (), "web.l4lb")
    applied = {
        LISTENERS[4]: service,
        LISTENERS[0]: service,
        LISTENERS[1]: service,
        LISTENERS[2]: attrs.evolve(service, name=None),
    }
    assert zone.take_applied(applied, frozenset(applied)) == {"web.l4lb"}
    assert [str(one.data) for one in zone.zone.records["web.l4lb"]] == ["127.11.0.1", "fd01:c::1"]
    assert zone.take_applied({}, frozenset(applied)) == {"web.l4lb"}
    assert set(zone.zone.records) == {zone.zone.apex}
