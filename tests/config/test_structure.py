"""From merged tables to settings, and every mistake in one reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.config.fields import ConfigPath, Duration, IpAddress, IpRange, Secret, Size
from dcosnet.config.merge import Merged, Origin, Table, plant, read
from dcosnet.config.structure import structure
from dcosnet.errors import ConfigErrors
from dcosnet.model.net import Protocol


class Port(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    protocol: Protocol = Protocol.TCP


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    path: ConfigPath
    poll: Duration = Duration(5.0)
    limit: Size | None = None
    pick: Literal["least", "random"] = "least"
    ports: tuple[Port, ...] = ()
    upstreams: tuple[str, ...] = ()
    addresses: Annotated[tuple[IpAddress, ...], msgspec.Meta(max_length=2)] = ()
    ranges: tuple[IpRange, ...] = ()
    zones: Mapping[str, dict[str, str]] = msgspec.field(default_factory=dict)
    default: Port | None = None
    mixed: int | str = 0
    token: Secret | None = None
    first: int = 0
    last: int = 9

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError("last is before first")


class Empty(msgspec.Struct, frozen=True, kw_only=True):
    pass


TYPES: Mapping[str, type] = {"part": Settings, "other": Empty}


def merged(document: dict[str, Any], place: str = "test.toml") -> Merged:
    root = plant(document, Origin(place, Path("/base")))
    assert isinstance(root, Table)
    return Merged(root)


def problems(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigErrors) as caught:
        structure(merged(document), TYPES)
    assert all(problem.origin == "test.toml" for problem in caught.value.problems)
    return {problem.path: problem.reason for problem in caught.value.problems}


def test_every_kind_of_field_is_read() -> None:
    """Nested structs, lists of them, tables, optional values and our own types."""
    document = {
        "path": "data",
        "poll": "250ms",
        "limit": "1KiB",
        "pick": "random",
        "ports": [{"port": 53, "protocol": "udp"}, {"port": 80}],
        "upstreams": ["9.9.9.9"],
        "addresses": ["10.0.0.1", "::1"],
        "ranges": ["10.0.0.1-10.0.0.2"],
        "zones": {"a.example": {"k": "v"}},
        "default": {"port": 1},
        "mixed": "text",
        "token": "hunter2",
    }
    settings = structure(merged({"part": document}), TYPES)["part"]
    assert isinstance(settings, Settings)
    assert settings.path == Path("/base/data")
    assert (settings.poll, settings.limit, settings.pick) == (0.25, 1024, "random")
    assert settings.ports == (Port(port=53, protocol=Protocol.UDP), Port(port=80))
    assert settings.addresses == (ip_address("10.0.0.1"), ip_address("::1"))
    assert str(settings.ranges[0]) == "10.0.0.1-10.0.0.2"
    assert settings.zones == {"a.example": {"k": "v"}}
    assert (settings.default, settings.mixed, settings.upstreams) == (Port(port=1), "text", ("9.9.9.9",))
    assert settings.token is not None
    assert settings.token.reveal() == "hunter2"


def test_presence_and_always_decide_which_tables_are_made() -> None:
    """An absent table switches its part off, unless it always runs."""
    assert set(structure(merged({}), TYPES)) == set()
    assert structure(merged({}), TYPES, always=("other",)) == {"other": Empty()}
    assert structure(merged({"other": {}}), TYPES) == {"other": Empty()}


def test_types_of_absent_tables_are_not_looked_up() -> None:
    """Looking one up imports its part, which is heavy and may fail for want of a library."""

    class Lazy(Mapping[str, type]):
        def __getitem__(self, name: str) -> type:
            assert name == "other"
            return Empty

        def __iter__(self) -> Iterator[str]:
            return iter(TYPES)

        def __len__(self) -> int:
            return len(TYPES)

    assert set(structure(merged({"other": {}}), Lazy())) == {"other"}


def test_all_mistakes_are_told_at_once_with_their_path() -> None:
    """Whoever corrects a file reads the list once."""
    assert problems(
        {
            "prat": {},
            "other": {"x": 1},
            "loose": 1,
            "part": {
                "pol": "5s",
                "poll": 5,
                "limit": "much",
                "pick": "lest",
                "ports": [{"port": 0}, {"prt": 1}, 7],
                "upstreams": "9.9.9.9",
                "addresses": ["10.0.0.1", "10.1"],
                "ranges": ["x"],
                "zones": {"a.b": {"k": 1}},
                "default": 5,
                "mixed": [],
                "first": "one",
            },
        }
    ) == {
        "prat": "unknown table; did you mean part?",
        "loose": "unknown table; known: other, part",
        "other.x": "unknown key; known: none",
        "part.path": "is missing",
        "part.pol": "unknown key; did you mean poll?",
        "part.poll": '5 has no unit; write "5s" for seconds',
        "part.limit": '\'much\' is not a size; write bytes, "64KiB", "10MiB" or "1GiB"',
        "part.pick": "is 'lest'; it must be one of least, random; did you mean least?",
        "part.ports[0].port": "is 0; expected int >= 1",
        "part.ports[1].port": "is missing",
        "part.ports[1].prt": "unknown key; did you mean port?",
        "part.ports[2]": "is 7; a table is wanted",
        "part.upstreams": "is '9.9.9.9'; a list is wanted",
        "part.addresses[1]": "'10.1' is not an IPv4 or IPv6 address",
        "part.ranges[0]": "'x' is not FIRST-LAST",
        'part.zones."a.b".k': "is 1; expected str, got int",
        "part.default": "is 5; a table is wanted",
        "part.mixed": "is []; expected int, got array",
        "part.first": "is 'one'; expected int, got str",
    }


def test_bounds_hold_for_containers_and_settings_that_must_agree() -> None:
    """A Meta on a list and a __post_init__ are reported as configuration, not as a traceback."""
    assert problems({"part": {"path": "x", "addresses": ["::1", "::2", "::3"]}}) == {
        "part.addresses": "is ['::1', '::2', '::3']; expected array of length <= 2"
    }
    assert problems({"part": {"path": "x", "first": 2, "last": 1}}) == {"part": "last is before first"}


def test_text_outside_files_needs_no_quotes() -> None:
    """`--set part.path=5` names a file; in TOML the number would be a mistake."""
    merged_part = read(None, {"DCOSNET_PART__TOKEN": "true"}, ["part.path=5", "part.limit=5"])
    settings = structure(merged_part, TYPES)["part"]
    assert isinstance(settings, Settings)
    assert settings.token == Secret("true")
    assert (settings.path, settings.limit) == (Path.cwd() / "5", 5)
    assert "part.path" in problems({"part": {"path": 5}})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(Settings.__struct_fields__), value=values)
def test_any_value_is_read_or_refused(key: str, value: object) -> None:
    """A value of a wrong type is a configuration error that names its place, never another exception."""
    try:
        structure(merged({"part": {"path": "/x", key: value}}), TYPES)
    except ConfigErrors as error:
        assert all(problem.path.startswith("part") for problem in error.problems)


@given(st.sets(st.sampled_from(["poll", "limit", "pick", "ports", "upstreams", "ranges", "mixed", "first"])))
def test_each_bad_field_is_reported_whatever_the_others_are(bad: set[str]) -> None:
    """No mistake hides another one."""
    document = {"path": "/x"} | dict.fromkeys(bad, 1.5)
    try:
        structure(merged({"part": document}), TYPES)
        found = set()
    except ConfigErrors as error:
        found = {problem.path.removeprefix("part.") for problem in error.problems}
    assert found == bad
