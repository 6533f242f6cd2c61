"""RecordIO framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.sources.mesos.recordio import ProtocolError, RecordReader


def framed(records):
    return b"".join(b"%d\n%b" % (len(record), record) for record in records)


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(1, 12)), st.integers(0, 40))
def test_framing_does_not_depend_on_segments(records, sizes, long):
    """However the stream is cut, the records are those that were framed, and stay so."""
    stream, reader, found = framed(records), RecordReader(long=long), []
    for size in [*sizes, *([7] * len(stream))]:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == records
    assert reader.missing == 0


@pytest.mark.parametrize(
    "stream",
    [
        b"<html>",
        b"HTTP/1.1 200 OK",
        b"\n",
        b"-1\n",
        b" 5\nhello",
        b"5 \nhello",
        b"1234567890123",
        b"5\nhello<",
        b"\xd9\xa3\n",
    ],
)
def test_what_is_not_recordio_is_refused(stream):
    with pytest.raises(ProtocolError, match="not RecordIO"):
        RecordReader().feed(stream)


@pytest.mark.parametrize("stream", [b"1000000000\n", b"999999999999\n{", b"11\n"])
def test_a_record_over_the_limit_is_refused_before_any_of_it_is_kept(stream):
    reader = RecordReader(limit=10) if stream == b"11\n" else RecordReader()
    with pytest.raises(ProtocolError, match="longer than"):
        reader.feed(stream)


def test_a_stream_that_ends_within_a_record_is_seen():
    """Between records it may end, within one it was cut."""
    reader = RecordReader()
    assert reader.feed(b"5\nhello3\nab") == [b"hello"]
    assert reader.missing == 1
    assert reader.feed(b"c1") == [b"abc"]
    assert reader.missing
    assert RecordReader().missing == 0
