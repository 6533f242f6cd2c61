"""
Value types for settings, and how each is read from what TOML can say.

A part annotates its `Settings` with these names. Defaults are given as values
(`Duration(5.0)`), never as text. What a container or a struct is belongs to
`structure`; this module reads one value at a time. Readers raise ValueError whatever is wrong: it is the
user's text, not a caller's type.
"""

# ruff: noqa: TRY004

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from posixpath import normpath
from typing import Any

import attrs

from dcosnet.model.addressing import AddressRange, parse_range
from dcosnet.model.net import Address, parse_address

_UNITS_OF_TIME = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}  # milliseconds
_UNITS_OF_SIZE = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
# The digits are bounded: no configured value needs more, and none overflows.
_TIME_STEP = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|[dhms])")
_SIZE = re.compile(r"([0-9]{1,15})(?: ?(B|KiB|MiB|GiB|KB|MB|GB))?")


class Duration(float):
    """
    Seconds. Written "250ms", "30s", "5m", "1h", "2d" or "1h30m".

    A number without a unit is refused: one reader takes it for seconds, the
    next for milliseconds.
    """

    __slots__ = ()

    @property
    def text(self) -> str:
        """As it would be written: "90s" is "1m30s"."""
        exact = Decimal(repr(float(self))) * 1000
        left, steps = int(exact), []
        if left != exact:
            return f"{exact / 1000:f}s"
        for unit, milliseconds in _UNITS_OF_TIME.items():
            count, left = divmod(left, milliseconds)
            if count:
                steps.append(f"{count}{unit}")
        return "".join(steps) or "0s"


class Size(int):
    """Bytes. Written "64KiB", "10MB", "512B", or as a plain number of bytes."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """As it would be written, in the largest binary unit that is exact."""
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _UNITS_OF_SIZE[unit] == 0:
                return f"{self // _UNITS_OF_SIZE[unit]}{unit}"
        return f"{int(self)}B"


@attrs.frozen(repr=False)
class Secret:
    """Text that no log, error or `show-config` prints; `reveal` gives it."""

    _text: str

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"


ConfigPath = Path
"""
A path, absolute once it is read: against the directory of the file that names
it, or the current one for the environment and `--set`. Give absolute defaults.
".." is taken by the letters, for people to read "/srv/a" and not "/srv/etc/../a";
links are not looked at, so "link/../a" is beside the link, not beside its target.
"""

IpAddress = Address
"""An IPv4 or IPv6 address, written strictly."""

IpRange = AddressRange
"""All addresses from one to another, written "FIRST-LAST"."""


def parse_duration(text: str) -> Duration:
    """Read "1h30m". Raises ValueError with a sentence for people."""
    # Decimal, so that "51ms" is the same number as 0.051 in the code.
    total, at = Decimal(0), 0
    while step := _TIME_STEP.match(text, at):
        total += Decimal(step[1]) * _UNITS_OF_TIME[step[2]]
        at = step.end()
    if at == 0 or at != len(text):
        raise ValueError(f'{text!r} is not a duration; write "250ms", "30s", "5m", "1h" or "2d"')
    return Duration(total / 1000)


def parse_size(text: str) -> Size:
    """Read "64KiB". Raises ValueError with a sentence for people."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a size; write bytes, "64KiB", "10MiB" or "1GiB"')
    return Size(int(match[1]) * _UNITS_OF_SIZE[match[2] or "B"])


def _text(value: object, wanted: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not {wanted}")


def _duration(value: object, _base: Path) -> Duration:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'{value} has no unit; write "{value}s" for seconds')
    return parse_duration(_text(value, 'a duration; write text, "30s"'))


def _size(value: object, _base: Path) -> Size:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value} is less than nothing")
        return Size(value)
    return parse_size(_text(value, 'a size; write bytes or "64KiB"'))


def _secret(value: object, _base: Path) -> Secret:
    if not isinstance(value, str):
        raise ValueError("a secret is text")
    return Secret(value)


def _path(value: object, base: Path) -> Path:
    text = _text(value, "a path")
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    return Path(normpath(base / text))


def _address(value: object, _base: Path) -> Address:
    return parse_address(_text(value, "an IPv4 or IPv6 address"))


def _one_family(family: type[IPv4Address | IPv6Address]) -> Callable[[object, Path], Address]:
    def read(value: object, base: Path) -> Address:
        address = _address(value, base)
        if not isinstance(address, family):
            raise ValueError(f"{value!r} is not an IPv{4 if family is IPv4Address else 6} address")
        return address

    return read


def _range(value: object, _base: Path) -> AddressRange:
    return parse_range(_text(value, "a range; write FIRST-LAST"))


READERS: Mapping[Any, Callable[[object, Path], object]] = {
    Duration: _duration,
    Size: _size,
    Secret: _secret,
    Path: _path,
    AddressRange: _range,
    IPv4Address: _one_family(IPv4Address),
    IPv6Address: _one_family(IPv6Address),
    # mypy sees a union where the interpreter has a hashable value.
    IpAddress: _address,
}
"""
How a value of each type is read: `reader(value, base directory)`.

Each raises ValueError with a sentence for people.
"""
