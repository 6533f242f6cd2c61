"""How well this node is: so that it does not take its own trouble for others'."""

from dcosnet.gossip.health import BEAT, HEALS_AFTER, PAUSE, REST, WORST, Health


def test_who_is_called_in_time_was_not_paused():
    """Lateness is measured from when it wanted to be called."""
    health, now = Health(0.0), 0.0
    for _ in range(100):
        now = health.due
        assert health.notice(now, awaits=True) == 0.0
    assert health.notice(health.due + PAUSE, awaits=True) == 0.0
    assert health.notice(health.due + PAUSE + 0.01, awaits=True) > PAUSE


def test_to_be_called_early_and_often_is_no_pause():
    """Each frame is a call."""
    health = Health(0.0)
    for n in range(1000):
        assert health.notice(n / 1000, awaits=True) == 0.0
    assert health.due <= 1.0 + BEAT


def test_it_worsens_to_a_bound_and_heals_step_by_step():
    """Timeouts become nine times as long at the most."""
    health, now = Health(0.0), 0.0
    for _ in range(20):
        health.worsen(now)
    assert (health.score, health.stretch()) == (WORST, 1.0 + WORST)
    for left in range(WORST - 1, -1, -1):
        now += HEALS_AFTER
        health.notice(now - 0.01, awaits=True)
        assert health.score == left + 1
        health.notice(now, awaits=True)
        assert health.score == left


def test_time_that_goes_back_is_no_pause():
    """A monotonic clock does not, but a call may come with the time of another."""
    health = Health(10.0)
    assert health.notice(5.0, awaits=True) == 0.0
    assert health.due == 10.0 + BEAT


def test_at_rest_it_is_called_less_often():
    """Nobody can be late then; once an answer is awaited, a pause is seen as before."""
    health = Health(0.0)
    assert health.notice(BEAT, awaits=False) == 0.0
    assert health.due == BEAT + REST
    assert health.notice(BEAT + REST + PAUSE, awaits=False) == 0.0
    began = BEAT + REST + PAUSE
    health.watch(began)
    assert health.due == began + BEAT
    assert health.notice(began + BEAT + PAUSE + 0.01, awaits=True) > PAUSE
