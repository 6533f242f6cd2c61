"""Who may have a link: each refusal with its code, and which comes first."""

import msgspec
import pytest

from dcosnet.errors import PeerError
from dcosnet.gossip.door import Door
from dcosnet.gossip.faults import MANY, Faults
from dcosnet.gossip.link import Link
from dcosnet.gossip.messages import PROTOCOL, CloseCode, Hello, Record, Told
from dcosnet.gossip.table import Table

HELLO = Hello(PROTOCOL, PROTOCOL, "prod", "b", 5, 7, 0, bytes(8), fresh=False)
NONCE = 99


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def table():
    table = Table(Record("a", 5, 0, 1, (), ()), 0.0)
    table.take(Told(Record("b", 5, 0, 1, (), ())), 0.0)
    return table


@pytest.fixture
def door(table, faults):
    return Door("prod", NONCE, table, faults)


def link(certified="b", dialled=False, hello=None):
    made = Link(1, certified, "10.0.0.2:1", 0.0, dialled=dialled)
    made.hello = hello
    return made


def judged(door, *, certified="b", expected=None, before=None, **changes):
    objection = door.objection(link(certified), msgspec.structs.replace(HELLO, **changes), expected, before, 1.0)
    return None if objection is None else objection.code


def test_who_is_right_in_all_is_let_in(door):
    """Also one of whom nobody has heard, and one whose name nothing proves where there are no certificates."""
    assert judged(door) is None
    assert judged(door, expected="b") is None
    assert judged(door, certified="new", name="new") is None
    assert judged(door, certified=None) is None
    assert judged(door, generation=6) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cluster": "test"}, CloseCode.WRONG_CLUSTER),
        ({"least": PROTOCOL + 1, "most": PROTOCOL + 3}, CloseCode.VERSION),
        ({"least": 0, "most": PROTOCOL - 1}, CloseCode.VERSION),
        ({"certified": "c"}, CloseCode.IDENTITY),
        ({"expected": "c"}, CloseCode.IDENTITY),
        ({"certified": "a", "name": "a", "nonce": NONCE}, CloseCode.SELF),
        ({"certified": "a", "name": "a"}, CloseCode.TWO_NODES),
        ({"generation": 4}, CloseCode.STALE),
        ({"before": link(hello=msgspec.structs.replace(HELLO, nonce=8))}, CloseCode.TWO_NODES),
    ],
)
def test_each_refusal_has_its_code(door, changes, code):
    """People and the other end act on it."""
    assert judged(door, **changes) is code


def test_a_newer_version_that_still_speaks_this_one_is_let_in(door):
    """A cluster is upgraded node by node."""
    assert judged(door, least=PROTOCOL, most=PROTOCOL + 1) is None


def test_the_first_that_fits_is_said(door):
    """A node of another cluster learns nothing of this one."""
    assert judged(door, cluster="test", certified="c", generation=1, least=9, most=9) is CloseCode.WRONG_CLUSTER
    assert judged(door, certified="c", generation=1) is CloseCode.IDENTITY


def test_nobody_is_believed_to_be_this_node_without_proof(door, table):
    """Else whoever says so could make it step back."""
    assert judged(door, certified="c", name="a", generation=9) is CloseCode.IDENTITY
    assert table.superseded is None


@pytest.mark.parametrize(
    ("generation", "nonce", "older"), [(6, 1, True), (5, 100, True), (5, 1, False), (4, 500, False)]
)
def test_of_two_of_this_name_the_older_steps_back(door, table, generation, nonce, older):
    """The lesser (generation, nonce); the other goes on."""
    assert judged(door, certified="a", name="a", generation=generation, nonce=nonce) is CloseCode.TWO_NODES
    assert (table.superseded is not None) is older


def test_who_has_sent_nonsense_waits(door, faults):
    """For ten minutes after the last."""
    for _ in range(MANY):
        faults.note("b", 0.5)
    assert judged(door) is CloseCode.QUARANTINE


@pytest.mark.parametrize("name", ["", " ", "x/y", "x\0y", "x" * 254])
def test_what_is_no_name_is_nonsense(door, name):
    """It would be shown to people, and stand in files."""
    with pytest.raises(PeerError):
        judged(door, certified=None, name=name)


@pytest.mark.parametrize(
    ("before", "new", "generation", "stays"),
    [
        (True, False, 5, True),
        (False, True, 5, False),
        (True, True, 5, False),
        (False, False, 5, False),
        (True, False, 6, False),
    ],
)
def test_of_two_links_one_stays(door, before, new, generation, stays):
    """The one that the lower name (here "a") has opened; the newer of one end; the newer generation."""
    old = link(dialled=before, hello=HELLO)
    hello = msgspec.structs.replace(HELLO, generation=generation)
    assert door.replaces(link(dialled=new), hello, old) is not stays
