"""Connections between real ends, with real certificates: who is let in, and what the core hears."""

from __future__ import annotations

import socket

import attrs
import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from dcosnet.gossip import peers
from dcosnet.gossip.contact import Contact
from dcosnet.gossip.messages import Close, CloseCode, Reason
from dcosnet.gossip.tls import ALPN
from dcosnet.gossip.wire import Reader

from .conftest import GREETING


async def linked(one, other, name=None):
    """The two numbers of a link that `one` opens to `other`."""
    number = one.dial(other, name)
    _, _, theirs, _ = await other.core.until("opened", one.core.name)
    await one.core.until("opened", other.core.name, number)
    return number, theirs


@pytest_twisted.ensureDeferred
async def test_both_ends_know_whom_they_talk_to(hosts):
    """By the certificate, whatever the address; and bytes pass both ways."""
    a, b = hosts.end("host-a"), hosts.end("host-b")
    mine, theirs = await linked(a, b, "host-b")
    assert ("opened", "host-b", mine, True) in a.core.calls
    assert ("opened", "host-a", theirs, False) in b.core.calls
    await b.core.until("feed", theirs)
    a.write(mine, b"!")
    await hosts.eventually(lambda: b.core.heard(theirs) == GREETING + b"host-a!")
    assert a.core.heard(mine) == GREETING + b"host-b"


@pytest_twisted.ensureDeferred
async def test_a_seed_may_be_anybody_of_the_cluster(hosts):
    """Nobody knows yet who is there."""
    a, b = hosts.end("host-a"), hosts.end("host-b")
    await linked(a, b)


@pytest_twisted.ensureDeferred
async def test_without_certificates_the_name_is_left_to_the_core(hosts):
    """Plaintext, on this host only."""
    a, b = hosts.end("host-a", None), hosts.end("host-b", None)
    number = a.dial(b)
    assert (await a.core.until("opened", None, number))[3] is True
    (_, _, theirs, dialled) = await b.core.until("opened", None)
    assert not dialled
    await hosts.eventually(lambda: a.core.heard(number) == GREETING + b"host-b")
    a.hang(number)
    assert await b.core.until("closed", theirs) == ("closed", theirs, "closed by the other end")
    assert not any(call[0] == "closed" for call in a.core.calls), "who hangs up is not told of it"


@pytest_twisted.ensureDeferred
async def test_plaintext_does_not_leave_this_host(hosts):
    """An endpoint that somebody told is not followed there."""
    a = hosts.end("host-a", None)
    number = a.dial("192.0.2.1:62501")
    _, _, why, text = await a.core.until("unreached", number)
    assert why is Reason.CERTIFICATE
    assert "not on this host" in text


def refused_by(end):
    (one,) = end.refusals
    return one[1:]


async def refused(one, other, name=None):
    """What the core of the end that dials is told, once the other end has noticed as well."""
    number = one.dial(other, name)
    _, _, why, text = await one.core.until("unreached", number)
    assert why is Reason.CERTIFICATE
    assert not [call for end in (one, other) for call in end.core.calls if call[0] == "opened" and end is one]
    return text


@pytest_twisted.ensureDeferred
async def test_who_calls_with_an_expired_certificate_is_told_so(hosts):
    """Both ends say what is to be done; the core of the end that is called hears nothing of it."""
    a = hosts.end("host-a", hosts.tls(hosts.files("host-a", days=10, age=20), "host-a"))
    b = hosts.end("host-b")
    assert "this node's certificate has expired" in await refused(a, b)
    await hosts.eventually(lambda: b.refusals)
    reason, text = refused_by(b)
    assert reason == "expired"
    assert "host-a" in text
    assert "renew it there" in text
    assert b.core.calls == []


@pytest_twisted.ensureDeferred
async def test_an_expired_certificate_is_not_called_a_peer(hosts):
    """The other way round: who calls finds out."""
    a = hosts.end("host-a")
    b = hosts.end("host-b", hosts.tls(hosts.files("host-b", days=10, age=20), "host-b"))
    assert "expired on" in await refused(a, b)
    await hosts.eventually(lambda: b.refusals)
    assert refused_by(b)[0] == "theirs"
    assert "has expired" in refused_by(b)[1]


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_tomorrow_is_refused_with_a_hint_at_the_clocks(hosts):
    """A clock that is wrong looks like this."""
    a = hosts.end("host-a", hosts.tls(hosts.files("host-a", age=-3), "host-a"))
    b = hosts.end("host-b")
    assert "clocks" in await refused(a, b)
    await hosts.eventually(lambda: b.refusals)
    reason, text = refused_by(b)
    assert reason == "not_yet_valid"
    assert "set the clocks" in text


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_another_authority_is_refused(hosts):
    """Who calls is trusted by nobody here, though it trusts our authority."""
    foreign = hosts.files("host-a", authority=hosts.other_authority())
    hosts.trust(foreign, "ca", "other")
    a, b = hosts.end("host-a", hosts.tls(foreign, "host-a")), hosts.end("host-b")
    assert "add that to its gossip.ca" in await refused(a, b)
    await hosts.eventually(lambda: b.refusals)
    assert refused_by(b)[0] == "foreign"


@pytest_twisted.ensureDeferred
async def test_an_unknown_authority_is_found_by_who_calls(hosts):
    """And the other end hears it."""
    foreign = hosts.files("host-b", authority=hosts.other_authority())
    a, b = hosts.end("host-a"), hosts.end("host-b", hosts.tls(foreign, "host-b"))
    assert "not in gossip.ca" in await refused(a, b)
    await hosts.eventually(lambda: b.refusals)
    assert refused_by(b)[0] == "theirs"


@pytest_twisted.ensureDeferred
async def test_another_cluster_of_the_same_authority_is_refused_in_words(hosts):
    """Two clusters with one authority stay two; a frame tells the other end, since no alert of TLS could."""
    trial = attrs.evolve(hosts.authority, cluster="trial")
    a = hosts.end("host-a", hosts.tls(hosts.files("host-a", authority=trial), "host-a", "trial"))
    b = hosts.end("host-b")
    assert "host-b of the cluster prod" in await refused(a, b)
    assert refused_by(a)[0] == "identity"
    # Either end may be the first to find out; when it is the one that was called, a frame comes.
    await hosts.eventually(lambda: b.refusals)
    assert "host-a of the cluster trial" in refused_by(b)[1]


@pytest_twisted.ensureDeferred
async def test_who_answers_in_place_of_another_is_not_taken_for_it(hosts):
    """An address that was recycled."""
    a, c = hosts.end("host-a"), hosts.end("host-c")
    assert await refused(a, c, "host-b") == "host-c answers where host-b is said to be"
    assert refused_by(a)[0] == "identity"
    # It was let in at the other end, and hears there why it is alone again.
    _, _, link, _ = await c.core.until("opened", "host-a")
    await c.core.until("feed", link)
    (message,) = Reader().feed(c.core.heard(link))
    assert message == Close(CloseCode.IDENTITY, "host-c answers where host-b is said to be")
    await c.core.until("closed", link)


@pytest_twisted.ensureDeferred
async def test_nobody_listening_is_told_apart_from_no_answer(hosts):
    """The first is a process that is gone, for certain."""
    a = hosts.end("host-a")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        number = a.dial(f"127.0.0.1:{held.getsockname()[1]}")
        _, _, why, text = await a.core.until("unreached", number)
    assert why is Reason.REFUSED
    assert "nobody listens" in text
    number = a.dial("no-such-host.invalid:62501")
    a.clock.advance(60)
    _, _, why, _ = await a.core.until("unreached", number)
    assert why is Reason.NO_ANSWER


@implementer(IOpenSSLClientConnectionCreator)
class Client:
    """A TLS client as a test wants it."""

    def __init__(self, files=None, latest=SSL.TLS1_3_VERSION, alpn=(ALPN,)):
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_max_proto_version(latest)
        if alpn:
            self.context.set_alpn_protos(list(alpn))
        if files is not None:
            self.context.use_certificate_file(str(files.cert))
            self.context.use_privatekey_file(str(files.key))

    def clientConnectionForTLS(self, protocol):
        return SSL.Connection(self.context, None)


@pytest.mark.parametrize(
    ("more", "certified", "reason", "text"),
    [
        ({}, False, "protocol", "did not return a certificate"),
        ({"latest": SSL.TLS1_2_VERSION}, True, "protocol", "unsupported protocol"),
        ({"alpn": ()}, True, "protocol", "does not speak xgossip/1"),
        ({"alpn": [b"http/1.1"]}, True, "protocol", "does not speak xgossip/1"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_gossip_over_tls_13_with_a_certificate_is_refused(more, certified, reason, text, hosts):
    """Whatever else is right about it."""
    from twisted.internet import reactor

    b = hosts.end("host-b")
    made = Client(hosts.files("host-a") if certified else None, **more)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", b.port.getHost().port)
    client = await connectProtocol(wrapClientTLS(made, endpoint), Raw())
    await hosts.eventually(lambda: client.lost)
    assert refused_by(b)[0] == reason
    assert text in refused_by(b)[1]
    assert b.core.calls == []


def test_plaintext_takes_nobody_in_from_elsewhere(hosts):
    """Should a listener of all interfaces ever come to be."""
    a = hosts.end("host-a", None)
    assert a.peers.admits(Contact("127.0.0.1", 1))
    assert not a.peers.admits(Contact("192.0.2.1", 1))
    assert refused_by(a)[0] == "plaintext"
    assert hosts.end("host-b").peers.admits(Contact("192.0.2.1", 1)), "with certificates it is let try"


class Raw(Protocol):
    """A client that is no node."""

    def __init__(self):
        self.data, self.lost = b"", False

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.lost = True


async def turn():
    """Let the reactor do what waits."""
    from twisted.internet import reactor

    await deferLater(reactor, 0)


async def raw(end):
    from twisted.internet import reactor

    return await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", end.port.getHost().port), Raw())


@pytest_twisted.ensureDeferred
async def test_who_connects_and_says_nothing_costs_only_itself(hosts):
    """It is cut in time, and meanwhile others are let in."""
    a, b = hosts.end("host-a"), hosts.end("host-b")
    client = await raw(b)
    await hosts.eventually(lambda: b.peers._pending)
    await linked(a, b)
    hosts.reactor.clock.advance(peers.HANDSHAKE - 0.1)
    assert not client.lost
    hosts.reactor.clock.advance(0.2)
    await hosts.eventually(lambda: client.lost)
    assert b.peers.counts.refused["silent"] == 1
    assert not b.refusals, "who never said a word is counted, and not worth a line"


@pytest_twisted.ensureDeferred
async def test_garbage_is_refused(hosts):
    """A scanner, or a node without certificates."""
    b = hosts.end("host-b")
    client = await raw(b)
    client.transport.write(b"GET / HTTP/1.0\r\n\r\n")
    await hosts.eventually(lambda: client.lost)
    assert refused_by(b)[0] == "protocol"
    assert b.core.calls == []


@pytest_twisted.ensureDeferred
async def test_a_server_that_speaks_no_tls_is_not_a_peer(hosts):
    """A node without certificates, or another service at a wrong port."""
    a, b = hosts.end("host-a"), hosts.end("host-b", None)
    number = a.dial(b)
    assert (await a.core.until("unreached", number))[2] in (Reason.CERTIFICATE, Reason.NO_ANSWER)
    assert not [call for call in a.core.calls if call[0] == "opened"]


@pytest_twisted.ensureDeferred
async def test_a_server_that_never_speaks_is_given_up(hosts):
    """It accepts and hangs; the dial ends in its time, and nothing of it stays."""
    a = hosts.end("host-a")
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        number = a.dial(f"127.0.0.1:{hanging.getsockname()[1]}")
        await hosts.eventually(lambda: a.peers._attempts[number].connection)
        a.clock.advance(60)
        _, _, why, text = await a.core.until("unreached", number)
        assert why is Reason.NO_ANSWER
        assert "within 60 s" in text
        await hosts.eventually(lambda: not a.peers._parting)


@pytest_twisted.ensureDeferred
async def test_of_too_many_silent_connections_the_new_one_is_closed_and_later_the_oldest(hosts):
    """A crowd that has just come may be a cluster that starts; one that stands there for a second is not."""
    b = hosts.end("host-b", pending=2)
    first, second = await raw(b), await raw(b)
    await hosts.eventually(lambda: len(b.peers._pending) == 2)
    third = await raw(b)
    await hosts.eventually(lambda: third.lost)
    hosts.reactor.clock.advance(peers.YOUNG)
    a = hosts.end("host-a")
    await linked(a, b)
    await hosts.eventually(lambda: first.lost)
    assert not second.lost
    assert b.peers.counts.refused["crowded"] == 2


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_is_told_of_and_has_room_again_when_it_does(hosts):
    """Bulk waits in the core, where it can be bounded, and not in a buffer."""
    a, b = hosts.end("host-a"), hosts.end("host-b")
    mine, theirs = await linked(a, b)
    await b.core.until("feed", theirs)
    reader = b.peers._links[theirs].transport
    reader.pauseProducing()
    written = 0
    while ("writable", mine, False) not in a.core.calls:
        assert written < 64 << 20
        a.write(mine, bytes(1 << 20))
        written += 1 << 20
        await turn()
    assert ("writable", mine, True) not in a.core.calls
    reader.resumeProducing()
    await a.core.until("writable", mine, True)
    await hosts.eventually(lambda: len(b.core.heard(theirs)) == written + len(GREETING) + 6)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_cannot_hold_a_link_that_is_hung_up(hosts):
    """In peace for two seconds, then at once."""
    a, b = hosts.end("host-a"), hosts.end("host-b")
    mine, theirs = await linked(a, b)
    b.peers._links[theirs].transport.pauseProducing()
    a.write(mine, bytes(32 << 20))
    await a.core.until("writable", mine, False)
    a.hang(mine)
    assert a.peers._parting
    a.clock.advance(peers.LINGER)
    await hosts.eventually(lambda: not a.peers._parting)
    b.peers._links[theirs].transport.resumeProducing()
    await b.core.until("closed", theirs)


@pytest_twisted.ensureDeferred
async def test_what_was_written_before_a_link_is_hung_up_arrives(hosts):
    """The record of a node that leaves, and why."""
    a, b = hosts.end("host-a"), hosts.end("host-b")
    mine, theirs = await linked(a, b)
    a.write(mine, b"x" * 300_000)
    a.hang(mine)
    await b.core.until("closed", theirs)
    assert b.core.heard(theirs) == GREETING + b"host-a" + b"x" * 300_000
    await hosts.eventually(lambda: not a.peers._parting)


@pytest_twisted.ensureDeferred
async def test_a_link_ends_when_the_certificate_of_the_peer_does(hosts):
    """Else a node whose certificate was let expire would stay for as long as its link."""
    a = hosts.end("host-a", hosts.tls(hosts.files("host-a", days=5), "host-a"))
    b = hosts.end("host-b")
    mine, theirs = await linked(a, b)
    b.peers.end_expired()
    assert not [call for call in b.core.calls if call[0] == "closed"]
    hosts.now = hosts.now.replace(year=hosts.now.year + 1, day=1)
    b.peers.end_expired()
    assert "the certificate of host-a expired" in (await b.core.until("closed", theirs))[2]
    await a.core.until("closed", mine)
    assert b"expired" in a.core.heard(mine)


@pytest_twisted.ensureDeferred
async def test_new_certificates_are_for_new_links_and_cut_none(hosts):
    """Renewed while it runs; the files are what counts."""
    files = hosts.files("host-a", days=5)
    a, b = hosts.end("host-a", hosts.tls(files, "host-a")), hosts.end("host-b")
    mine, theirs = await linked(a, b)
    before = b.peers._links[theirs].peer.expires
    hosts.files("host-a", days=300, renew=True)
    a.tls.take(a.tls.read())
    assert a.tls.reloads == 1
    a.write(mine, b"still here")
    await hosts.eventually(lambda: b.core.heard(theirs).endswith(b"still here"))
    b.core.calls.clear()
    a.core.calls.clear()
    _, again = await linked(a, b)
    assert b.peers._links[again].peer.expires > before
    assert theirs in b.peers._links


@pytest_twisted.ensureDeferred
async def test_an_authority_is_replaced_by_way_of_a_bundle_of_both(hosts):
    """First all trust both, then certificates are of the new one, then the old one goes. Nobody is refused."""
    new = hosts.other_authority("new")
    files = {name: hosts.files(name) for name in ("host-a", "host-b")}
    ends = {name: hosts.end(name, hosts.tls(files[name], name)) for name in files}
    steps = [
        lambda name: hosts.trust(files[name], "ca", "new"),
        lambda name: (hosts.files(name, authority=new, renew=True), hosts.trust(files[name], "ca", "new")),
        lambda name: hosts.trust(files[name], "new"),
    ]
    for step in steps:
        for name, end in ends.items():
            step(name)
            end.tls.take(end.tls.read())
            assert end.tls.problems == ()
            for one, other in (("host-a", "host-b"), ("host-b", "host-a")):
                ends[one].core.calls.clear()
                ends[other].core.calls.clear()
                await linked(ends[one], ends[other], other)
    assert not any(end.refusals for end in ends.values())
    assert all(end.tls.reloads == 3 for end in ends.values())
