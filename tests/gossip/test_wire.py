"""Frames: how they are cut does not matter, and nothing that comes costs more than itself."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.messages import Change, Close, CloseCode, Hello, Members, Message, Piece, Ping, Pong, Record, Told
from dcosnet.gossip.wire import (
    BODY_LIMIT,
    CHANGE_LIMIT,
    HELLO_LIMIT,
    PIECE,
    TYPES,
    FrameError,
    Reader,
    encode,
    encode_change,
    from_delta,
    to_delta,
)
from dcosnet.model.delta import Delta
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

from .frames import of_type

HELLO = Hello(1, 1, "prod", "host-b", 7, 1, 0, bytes(8), fresh=False)
messages = st.one_of([of_type(kind) for kind in TYPES.values() if kind is not Piece])


def greeted() -> Reader:
    reader = Reader()
    assert list(reader.feed(encode(HELLO))) == [HELLO]
    return reader


def raw(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + bytes((number,)) + body


def refused(reader: Reader, data: bytes) -> CloseCode:
    with pytest.raises(FrameError) as caught:
        list(reader.feed(data))
    assert str(caught.value)
    return caught.value.code


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 40), min_size=1))
def test_messages_arrive_as_they_were_sent_however_the_stream_is_cut(sent, cuts):
    """TCP cuts as it likes."""
    reader, stream, got, at, turn = greeted(), b"".join(map(encode, sent)), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        got += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == sent


@given(st.sampled_from(sorted(TYPES.items())).flatmap(lambda item: st.tuples(st.just(item[0]), of_type(item[1]))))
def test_what_a_later_version_appends_is_ignored(pair):
    """A node may be older than its peers."""
    number, message = pair
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    reader = greeted()
    body = msgspec.msgpack.encode([*fields, {"new": [1]}, "more"])
    if isinstance(message, Piece):
        reader.expect_pieces()
        assert refused(reader, raw(number, msgspec.msgpack.encode([True, b"?", "more"]))) is CloseCode.MALFORMED
    else:
        assert list(reader.feed(raw(number, body))) == [message]
    if fields:
        assert refused(greeted(), raw(number, msgspec.msgpack.encode(fields[:-1]))) is CloseCode.MALFORMED


def test_a_frame_that_is_too_long_is_refused_by_its_head():
    """Before anything is kept for it."""
    reader = greeted()
    assert refused(reader, (BODY_LIMIT + 1).to_bytes(4, "big") + b"\x05") is CloseCode.OVERSIZE
    assert list(greeted().feed(BODY_LIMIT.to_bytes(4, "big") + b"\x05" + bytes(100))) == []


def test_who_has_not_said_who_he_is_gets_little_room():
    """Nobody knows yet whether he may say anything."""
    assert refused(Reader(), (HELLO_LIMIT + 1).to_bytes(4, "big") + b"\x01") is CloseCode.OVERSIZE
    assert list(Reader().feed(encode(Close(1, "no")))) == [Close(1, "no")]


@given(messages.filter(lambda message: not isinstance(message, Hello | Close)))
def test_hello_comes_first(message):
    """However right a frame is, it is from nobody."""
    assert refused(Reader(), encode(message)) is CloseCode.MALFORMED


@pytest.mark.parametrize("number", [0, 15, 255])
def test_an_unknown_type_is_malformed(number):
    """A newer node sends new types only to who speaks its version."""
    assert refused(greeted(), raw(number, b"\x90")) is CloseCode.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x92\x01\xa1\xff",  # no UTF-8
        b"\x92\x01\xa3\xed\xa0\x80",  # half of a surrogate pair
        b"\x92\xff\xa0",  # below zero
        b"\x92\xcf\x80\0\0\0\0\0\0\0\xa0",  # 2^63
        b"\x92\xca\x3f\x80\0\0\xa0",  # not a whole number
        b"\xdd\xff\xff\xff\xff\x01",  # four thousand million elements
        b"\x93\x01\xa0" + b"\x91" * 3000 + b"\xc0",  # deep
        b"\x92\x01\xa0\xc0",  # and something after it
    ],
)
def test_what_cannot_be_read_is_malformed(body):
    """Nothing but a FrameError may come out, or the link would stay open in no known state."""
    assert refused(Reader(), raw(2, body)) is CloseCode.MALFORMED


def test_nothing_more_is_decoded_than_is_taken():
    """Who closes a link in the midst does not pay for the rest."""
    reader = greeted()
    taken = reader.feed(encode(Ping(1)) + raw(99, b""))
    assert next(taken) == Ping(1)
    taken.close()


def test_a_bomb_costs_no_more_than_its_octets():
    """An array that says to have many elements and does not."""
    reader = greeted()
    tracemalloc.start()
    try:
        refused(reader, raw(8, b"\x91\xdd\x7f\xff\xff\xff" + b"\x93\xa1x\x01\x01" * 10_000))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# Changes


def change(*values: bytes) -> Change:
    stamp = Stamp(5, 1, "host-b")
    entries = {
        f"k{n}": Entry(f"k{n}", "host-b", value, Lifetime.LEASE, n + 1, stamp, stamp) for n, value in enumerate(values)
    }
    return from_delta(Delta("host-b", 7, 0, len(values), {**entries, "gone": None}), more=False)


def test_a_delta_comes_back_from_the_wire_as_it_was():
    """With its deletions."""
    sent = change(b"1", b"22")
    (frame,) = encode_change(sent)
    (got,) = greeted().feed(frame)
    assert got == sent
    assert to_delta(got).changes["gone"] is None
    assert from_delta(to_delta(got), more=False) == sent


def test_a_large_change_comes_in_pieces_to_who_has_asked():
    """Of which none is so long that a ping waits for it."""
    sent = change(b"x" * 200_000)
    frames = encode_change(sent)
    assert len(frames) > 10
    assert max(map(len, frames)) <= PIECE + 16
    reader = greeted()
    reader.expect_pieces()
    assert list(reader.feed(b"".join(frames) + encode(Pong(1, b"")))) == [sent, Pong(1, b"")]


def test_pieces_that_nobody_asked_for_are_malformed():
    """They would be a way to make a peer keep ninety megabytes."""
    (first, *_) = encode_change(change(b"x" * 200_000))
    assert refused(greeted(), first) is CloseCode.MALFORMED


def test_pieces_without_end_are_refused():
    """What is kept for one link is bounded."""
    reader = greeted()
    reader.expect_pieces()
    reader._pieces = bytearray(CHANGE_LIMIT - 10)  # else this test would move ninety megabytes
    assert refused(reader, encode(Piece(False, bytes(11)))) is CloseCode.OVERSIZE


def test_pieces_that_are_no_change_are_malformed():
    """Only together they mean something."""
    reader = greeted()
    reader.expect_pieces()
    assert list(reader.feed(encode(Piece(False, b"\x91")))) == []
    assert refused(reader, encode(Piece(True, b"\xff"))) is CloseCode.MALFORMED


def test_a_record_survives_the_wire():
    """Structs inside of structs, by position."""
    told = Members((Told(Record("host-b", 7, 0, 1, ("10.0.0.1:62501",), ("10.0.0.1",)), True),))
    assert list(greeted().feed(encode(told))) == [told]
    assert isinstance(told, Message)
