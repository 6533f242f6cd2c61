"""JSON documents in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.sources.mesos import pieces as module
from dcosnet.sources.mesos.pieces import Opened, pieces
from dcosnet.sources.mesos.recordio import ProtocolError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
objects = st.dictionaries(st.text(), values, max_size=5)


def opened(value, depth, path=None):
    """What pieces should give, from the decoded document; that the document itself opens is no piece."""
    if depth and isinstance(value, dict):
        if path is not None:
            yield path, Opened.OBJECT
        for key, inner in value.items():
            yield from opened(inner, depth - 1, (*(path or ()), key))
    elif depth and isinstance(value, list):
        yield path, Opened.LIST
        for inner in value:
            yield from opened(inner, depth - 1, path)
    else:
        yield path, value


@given(objects, st.integers(1, 6), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_the_pieces_are_those_of_the_document(document, depth, window, ascii_only, indent):
    """However little of it is looked at together."""
    data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert list(pieces(data, depth, window)) == list(opened(document, depth))


@given(objects.filter(bool), st.data())
def test_a_document_cut_short_is_refused(document, data):
    text = json.dumps(document).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ProtocolError):
        list(pieces(text[:cut], 3, 16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body>404</body></html>",
        b"[1]",
        b"7",
        b'{"a": 1} x',
        b'{"a" 1}',
        b'{"a": 1 "b": 2}',
        b'{"a": 1]',
        b"{1: 2}",
        b'{"a": "\xff"}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=repr,
)
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(ProtocolError):
        list(pieces(data, 3))


def test_one_huge_value_is_refused():
    """It would have to be read in one go."""
    with pytest.raises(ProtocolError, match="longer than"):
        list(pieces(b'{"a": "' + b"x" * (3 * module.LIMIT) + b'"}', 2))
