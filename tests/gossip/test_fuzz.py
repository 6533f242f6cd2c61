"""Octets that are nearly frames: whatever comes, the core goes on, and keeps nothing of it."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.messages import Piece
from dcosnet.gossip.wire import TYPES, FrameError, Reader, encode
from dcosnet.testing.fuzz_gossip import Mutator, Target, load

from .frames import of_type
from .make_corpus import CORPUS, frames

messages = st.one_of([of_type(kind) for kind in TYPES.values()])


def test_the_corpus_is_what_its_script_makes_and_has_each_type():
    """A type that is not in it is not fuzzed."""
    assert {path.name: path.read_bytes() for path in CORPUS.glob("*.bin")} == frames()
    assert {frame[4] for frame in frames().values()} == set(TYPES)


def test_good_frames_of_the_corpus_are_read():
    """Else all that is made of them is nonsense of one kind."""
    for frame in load(CORPUS):
        reader = Reader()
        list(reader.feed(frames()["hello.bin"]))
        reader.expect_pieces()
        assert len(list(reader.feed(frame))) == (TYPES[frame[4]] is not Piece)


@given(st.binary(max_size=300), st.booleans())
def test_nothing_but_a_frame_error_leaves_the_reader(octets, greeted):
    """Before HELLO and after it."""
    reader = Reader()
    if greeted:
        list(reader.feed(frames()["hello.bin"]))
    try:
        list(reader.feed(octets))
    except FrameError as error:
        assert error.text


def test_nothing_leaves_the_core_whatever_is_fed():
    """A few thousand nearly right frames of a few seeds; the system test takes more, and the benchmark ten million."""
    for seed in range(4):
        rng = Random(seed)
        mutator, target = Mutator(load(CORPUS), rng), Target(rng)
        for _ in range(3000):
            target.feed(mutator.frame())
        assert target.closed["malformed"] > 100
        assert target.closed["oversize"]


@given(st.lists(messages, max_size=12), st.integers(0, 100))
def test_nothing_leaves_the_core_whatever_is_said(said, seed):
    """Right frames with any content: other names, numbers and limits than anybody would say."""
    target = Target(Random(seed))
    for message in said:
        target.feed(encode(message))
    target.feed(encode(said[0]) * 50 if said else b"")
