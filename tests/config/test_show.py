"""The configuration in effect, printed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.config.fields import Duration, IpAddress, Secret, Size
from dcosnet.config.merge import Merged, Origin, Table, plant, read
from dcosnet.config.show import show
from dcosnet.config.structure import structure
from dcosnet.model.net import Protocol, parse_address


class Port(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    name: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    text: str = ""
    number: float = 1.5
    flag: bool = False
    poll: Duration = Duration(5.0)
    size: Size = Size(65536)
    address: IpAddress | None = None
    protocol: Protocol = Protocol.UDP
    ports: tuple[Port, ...] = ()
    zones: Mapping[str, dict[str, str]] = msgspec.field(default_factory=dict)
    token: Secret | None = None


TYPES: Mapping[str, type] = {"part": Settings}


def test_each_value_tells_where_it_comes_from(tmp_path: Path) -> None:
    """A person sees which file to edit."""
    main = tmp_path / "main.toml"
    main.write_text('[part]\ntext = "a"\n[part.zones."x.example"]\nk = "v"\n')
    merged = read(main, {"DCOSNET_PART__POLL": "1h"}, ["part.flag=true"])
    lines = show(merged, structure(merged, TYPES)).splitlines()
    assert f'text = "a"  # {main}' in lines
    assert 'poll = "1h"  # environment DCOSNET_PART__POLL' in lines
    assert "flag = true  # --set part.flag" in lines
    assert 'size = "64KiB"  # default' in lines
    assert "# address is not set" in lines
    assert f'k = "v"  # {main}' in lines[lines.index('[part.zones."x.example"]') :]


def test_a_secret_is_hidden() -> None:
    """The output goes into bug reports."""
    merged = read(None, {}, ["part.token=hunter2"])
    text = show(merged, structure(merged, TYPES))
    assert "hunter2" not in text
    assert 'token = "<secret>"' in text


settings = st.builds(
    Settings,
    text=st.text(),
    number=st.floats(allow_nan=False),
    flag=st.booleans(),
    poll=st.integers(0, 10**9).map(lambda milliseconds: Duration(milliseconds / 1000)),
    size=st.integers(0, 10**9).map(Size),
    address=st.none() | st.ip_addresses().map(lambda address: parse_address(str(address))),
    protocol=st.sampled_from(Protocol),
    ports=st.lists(st.builds(Port, port=st.integers(0, 9), name=st.none() | st.text()), max_size=2).map(tuple),
    zones=st.dictionaries(st.text(), st.dictionaries(st.text(), st.text(), max_size=2), max_size=2),
)


@given(settings, st.text())
def test_what_is_shown_reads_back(value: Settings, place: str) -> None:
    """The output is TOML of the same configuration, whatever stands in values, keys and file names."""
    root = plant({"part": {"text": ""}}, Origin(place, Path("/")))
    assert isinstance(root, Table)
    document = tomllib.loads(show(Merged(root), {"part": value}))
    again = plant(document, Origin("again", Path("/")))
    assert isinstance(again, Table)
    assert structure(Merged(again), TYPES) == {"part": value}
