"""Names asked for by several."""

from ipaddress import ip_address

from twisted.internet.defer import Deferred, succeed

from dcosnet.io.names import Names

HERE = ip_address("127.0.0.1")


def test_a_name_is_asked_for_once_at_a_time():
    """A silent name server must not have all threads of the resolver."""
    asked = []

    def resolve(name):
        asked.append((name, Deferred()))
        return asked[-1][1]

    names, heard = Names(resolve), []
    impatient = names.address("a")
    impatient.addErrback(lambda _: heard.append("gave up"))
    names.address("a").addCallback(heard.append)
    impatient.cancel()
    assert [name for name, _ in asked] == ["a"]
    asked[0][1].callback(HERE)
    assert heard == ["gave up", HERE]
    names.address("a")
    assert [name for name, _ in asked] == ["a", "a"]


def test_an_answer_may_be_there_at_once():
    """As it is for addresses."""
    heard = []
    names = Names(lambda _: succeed(HERE))
    names.address("127.0.0.1").addCallback(heard.append)
    assert heard == [HERE]


def test_closing_leaves_nobody_waiting():
    """A question that is never answered is no reason to stay."""
    waiting = Deferred()
    names, heard = Names(lambda _: waiting.addErrback(lambda _: None)), []
    names.address("a").addCallback(heard.append)
    names.close()
    assert heard == [None]
