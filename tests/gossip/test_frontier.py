"""What is told of leaves: whole, once, and in frames that are not too long."""

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.digest import LEAVES, Digest, leaf_of
from dcosnet.gossip.frontier import WEIGHT, frontiers
from dcosnet.gossip.wire import BODY_LIMIT, encode

ALL = bytes(range(LEAVES))


@given(st.integers(0, 400), st.integers(0, 400), st.integers(1, 200))
def test_each_leaf_is_whole_in_one_frame(members, keys, length):
    """What a frame leaves out of a leaf is unknown to its sender; a leaf in two frames would deny half of itself."""
    some, more = Digest(), Digest()
    for n in range(members):
        some.put(f"{n}".ljust(length, "é"), (1 << 62, n))
    for n in range(keys):
        more.put(f"{n}".ljust(length, "x"), (n, 1))
    frames = list(frontiers(some, ALL, more, ALL[::-1], answer=True))
    assert b"".join(frame.member_leaves for frame in frames) == ALL
    assert b"".join(frame.key_leaves for frame in frames) == ALL[::-1]
    assert all(frame.answer for frame in frames)
    for frame in frames:
        assert {leaf_of(name) for name, _, _ in frame.members} <= set(frame.member_leaves)
        assert len(encode(frame)) <= BODY_LIMIT
    assert sum(len(frame.members) for frame in frames) == members
    assert sum(len(frame.keys) for frame in frames) == keys
    assert len(frames) <= 1 + (members + keys) * (2 * length + 30) // (WEIGHT // 2)


def test_that_nothing_is_known_is_said_too():
    """The other end waits for the answer."""
    (frame,) = frontiers(Digest(), b"\x01", Digest(), b"", answer=False)
    assert (frame.member_leaves, frame.members, frame.answer) == (b"\x01", (), False)
