"""
A JSON document in pieces, so that sixty megabytes do not hold up anything.

The value is that each piece costs little and nothing waits for the whole. What
a piece means is the caller's business.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

from dcosnet.sources.mesos.recordio import ProtocolError

LIMIT = 4 << 20
"""The longest piece, in characters: a few hundred times a large task."""

_WINDOW = 64 << 10
_SPACE = " \t\r\n"
_NUMBER_TAIL = 3

Piece = tuple[tuple[str, ...], Any]
"""A value and the keys that lead to it; elements of a list all have the list's path."""


class Opened(Enum):
    """In place of a value: an object or a list begins whose values follow. So an empty one is not an absent one."""

    OBJECT = "{"
    LIST = "["


def pieces(data: bytes | bytearray, depth: int, window: int = _WINDOW) -> Iterator[Piece]:
    """
    The values of an object, opening objects and lists down to `depth` levels.

    With depth 2, `{"a": {"b": [1, 2]}, "c": [3]}` gives `(("a",), Opened.OBJECT)`,
    `(("a", "b"), [1, 2])`, `(("c",), Opened.LIST)` and `(("c",), 3)`. `window` is
    how many bytes are looked at together.

    Raises ProtocolError as soon as it is seen that the data is not a JSON
    object, or that one piece is longer than LIMIT.
    """
    view = _Window(data, window)
    if view.peek() != "{":
        raise ProtocolError(f"a JSON object was expected, not {bytes(data[:20])!r}")
    yield from _open(view, (), depth)
    if view.peek():
        raise ProtocolError("something follows the JSON object")


def _open(window: _Window, path: tuple[str, ...], depth: int) -> Iterator[Piece]:
    """The pieces of the object or list that begins here."""
    closing = "}" if window.take() == "{" else "]"
    if window.peek() == closing:
        window.take()
        return
    while True:
        inner = path
        if closing == "}":
            inner = (*path, window.key())
        mark = window.peek()
        if depth > 1 and mark in ("{", "["):
            yield inner, Opened(mark)
            yield from _open(window, inner, depth - 1)
        else:
            yield inner, window.value()
        mark = window.take()
        if mark == closing:
            return
        if mark != ",":
            raise ProtocolError(f"not JSON: {mark!r} where a value ends")


class _Window:
    """The part of a document that is being read, as text."""

    def __init__(self, data: bytes | bytearray, size: int) -> None:
        self._data = memoryview(data)
        self._size = size
        self._fed = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder(parse_constant=lambda _: None)  # NaN is no JSON
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """The next character that is not space, "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self) -> str:
        """The same, and go past it."""
        mark = self.peek()
        self._at += 1
        return mark

    def key(self) -> str:
        """A key with its colon."""
        key = self.value()
        if not isinstance(key, str) or self.take() != ":":
            raise ProtocolError("not JSON: a key was expected")
        return key

    def value(self) -> Any:
        """A whole value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except RecursionError:
                raise ProtocolError("the JSON is nested too deeply") from None
            except ValueError as error:
                # Not JSON, or not yet all of it.
                if not self._more():
                    raise ProtocolError(f"not JSON: {error}") from None
            else:
                # A number may go on after the window, by "e+1" at the latest.
                if len(self._text) - end >= _NUMBER_TAIL or not self._more():
                    self._at = end
                    return value

    def _more(self) -> bool:
        """
        Widen the window; False at the end.

        By as much as it still holds, at least: what is long is tried again a
        few times only.
        """
        if self._fed == len(self._data):
            return False
        rest = self._text[self._at :]
        if len(rest) > LIMIT:
            raise ProtocolError(f"a value is longer than {LIMIT} characters")
        size = max(self._size, len(rest))
        chunk = self._data[self._fed : self._fed + size]
        self._fed += len(chunk)
        try:
            text = self._utf8.decode(chunk, self._fed == len(self._data))
        except UnicodeDecodeError as error:
            raise ProtocolError(f"not UTF-8: {error.reason}") from None
        self._text, self._at = rest + text, 0
        return True
