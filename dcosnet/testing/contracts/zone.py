"""
What every IZone keeps: the suite to run on one of your own.

`class TestMine(zone_contract(make))`, where `make()` gives one with some content.
"""

from __future__ import annotations

from collections.abc import Callable

from zope.interface.verify import verifyObject

from dcosnet.interfaces import IZone
from dcosnet.model.names import usable
from dcosnet.model.zone import RecordType


def zone_contract(make: Callable[[], IZone]) -> type:
    """A class of tests for pytest."""

    class ZoneContract:
        def test_it_provides_the_interface(self) -> None:
            """Names and signatures are those of the interface."""
            verifyObject(IZone, make())

        def test_the_apex_is_in_look_up_form(self) -> None:
            """Queries are matched against it as it stands."""
            zone = make()
            assert usable(zone.apex)
            assert zone.apex == zone.apex.lower()
            assert zone.zone.value.apex == zone.apex

        def test_the_apex_has_its_soa_and_ns(self) -> None:
            """Without an SOA a name cannot be denied (RFC 2308)."""
            zone = make()
            types = [record.type for record in zone.zone.value.records[zone.apex]]
            assert types.count(RecordType.SOA) == 1
            assert RecordType.NS in types

        def test_every_owner_lies_in_the_zone(self) -> None:
            """In lower case, under the apex, and such as DNS can hold."""
            zone = make()
            for name, records in zone.zone.value.records.items():
                assert name == zone.apex or name.endswith("." + zone.apex)
                assert usable(name)
                assert name == name.lower()
                assert records, f"{name} has no records; a name that is gone is no key"

        def test_an_alias_has_no_other_records(self) -> None:
            """RFC 1034 3.6.2."""
            for records in make().zone.value.records.values():
                types = [record.type for record in records]
                assert RecordType.CNAME not in types or len(types) == 1

    return ZoneContract
