"""Time for cores."""

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dcosnet.io.steady import Steady


def test_it_is_the_reactors_time_but_for_the_clock():
    """Whatever the host's clock says, seconds do not go back; calls are the reactor's, which can be seen there."""
    clock, heard = Clock(), []
    steady = Steady(clock)
    verifyObject(IReactorTime, steady)
    clock.advance(1e12)
    before = steady.seconds()
    call = steady.callLater(1, heard.append, 1)
    assert steady.getDelayedCalls() == [call] == clock.getDelayedCalls()
    clock.advance(1)
    assert heard == [1]
    assert 0 <= steady.seconds() - before < 1e6
