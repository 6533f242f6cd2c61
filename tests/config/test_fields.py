"""The value types of settings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.config.fields import READERS, Duration, IpAddress, IpRange, Secret, Size, parse_duration, parse_size

BASE = Path("/etc/dcosnet")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5s", 1.5), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("0s", 0)],
)
def test_duration_reads_its_units(text: str, seconds: float) -> None:
    """Each unit of the documentation means what people expect."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value", [5, 5.0, True, "5", "", "s", "-5s", "5 s", "5S", "5s!", "1e3s", "٣s", "9" * 400 + "s"]
)
def test_duration_without_a_clear_unit_is_refused(value: object) -> None:
    """A number alone would be seconds for one reader and milliseconds for the next."""
    with pytest.raises(ValueError, match=r"unit|not a duration"):
        READERS[Duration](value, BASE)


@given(st.integers(0, 10**9))
def test_duration_text_reads_back(milliseconds: int) -> None:
    """What show-config prints is the same duration."""
    duration = Duration(milliseconds / 1000)
    assert parse_duration(duration.text) == duration


def test_duration_text_is_short_where_it_can_be() -> None:
    """Whole units where they are exact, else seconds."""
    texts = [Duration(seconds).text for seconds in (0, 90, 0.051, 86400, 0.0005)]
    assert texts == ["0s", "1m30s", "51ms", "1d", "0.0005s"]


@pytest.mark.parametrize(
    ("value", "size"), [(512, 512), ("512B", 512), ("64KiB", 65536), ("10MB", 10**7), ("1 GiB", 2**30)]
)
def test_size_reads_its_units(value: object, size: int) -> None:
    """Binary and decimal units differ, and bytes may be plain."""
    assert READERS[Size](value, BASE) == size


@pytest.mark.parametrize("value", [-1, True, 1.5, "64K", "64kib", "many", ""])
def test_size_of_no_known_unit_is_refused(value: object) -> None:
    """An ambiguous K is not guessed."""
    with pytest.raises(ValueError, match=r"size|nothing"):
        READERS[Size](value, BASE)


@given(st.integers(0, 10**9))
def test_size_text_reads_back(size: int) -> None:
    """What show-config prints is the same size."""
    assert parse_size(Size(size).text) == size


def test_secret_does_not_show_itself() -> None:
    """Neither str, repr nor a format string gives the text away."""
    secret = READERS[Secret]("hunter2", BASE)
    assert isinstance(secret, Secret)
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret}{secret!r}{[secret]}"


def test_secret_of_another_type_is_not_told_in_the_error() -> None:
    """A password of digits alone must not reach the console through its own error."""
    with pytest.raises(ValueError, match="text") as caught:
        READERS[Secret](12345, BASE)
    assert "12345" not in str(caught.value)


def test_path_is_relative_to_its_file() -> None:
    """The directory that the daemon was started in does not matter."""
    assert READERS[Path]("tls/node.pem", BASE) == Path("/etc/dcosnet/tls/node.pem")
    assert READERS[Path]("/srv/node.pem", BASE) == Path("/srv/node.pem")


@pytest.mark.parametrize(
    ("text", "told"),
    [("../.demo", "/etc/.demo"), ("./a//b/../c/.", "/etc/dcosnet/a/c"), ("/../x", "/x"), (".", "/etc/dcosnet")],
)
def test_path_is_shown_as_people_would_write_it(text: str, told: str) -> None:
    """A page that says /etc/dcosnet/../.demo makes its reader calculate."""
    assert str(READERS[Path](text, BASE)) == told


def test_path_does_not_follow_links(tmp_path) -> None:
    """A link may be changed to point elsewhere while we run; the name stays what was configured."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert READERS[Path]("link/a", tmp_path) == tmp_path / "link" / "a"
    assert READERS[Path]("link/../a", tmp_path) == tmp_path / "a"


def test_addresses_and_ranges_are_read_strictly() -> None:
    """Short forms are refused, whichever family is asked for."""
    assert READERS[IpAddress]("::1", BASE) == ip_address("::1")
    assert READERS[IPv4Address]("10.0.0.1", BASE) == ip_address("10.0.0.1")
    assert str(READERS[IpRange]("10.0.0.1-10.0.0.9", BASE)) == "10.0.0.1-10.0.0.9"
    for kind, value in ((IpAddress, "10.1"), (IpAddress, 10), (IPv4Address, "::1"), (IPv6Address, "10.0.0.1")):
        with pytest.raises(ValueError, match="is not an IPv"):
            READERS[kind](value, BASE)
    with pytest.raises(ValueError, match="mixes"):
        READERS[IpRange]("10.0.0.1-::1", BASE)


@given(
    kind=st.sampled_from(list(READERS)),
    value=st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()),
)
def test_any_value_is_read_or_refused(kind: type, value: object) -> None:
    """A reader raises nothing but ValueError with a sentence."""
    try:
        READERS[kind](value, BASE)
    except ValueError as error:
        assert str(error)
