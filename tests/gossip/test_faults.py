"""Who sends nonsense is not talked to for a while, and who does not is."""

from dcosnet.gossip.faults import FOR, MANY, REMEMBERED, WITHIN, Faults


def test_two_are_not_enough_and_three_are():
    """One may be an accident."""
    faults = Faults()
    for n in range(MANY - 1):
        faults.note("b", float(n))
    assert faults.quarantined("b", 5.0) == 0
    faults.note("b", 5.0)
    assert faults.quarantined("b", 6.0) == FOR - 1
    assert faults.quarantined("c", 6.0) == 0
    assert faults.quarantined("b", 5.0 + FOR) == 0


def test_those_of_long_ago_do_not_count():
    """A node that runs for a year may err three times."""
    faults = Faults()
    for n in range(10):
        faults.note("b", n * (WITHIN / 2 + 1))
        assert faults.quarantined("b", n * (WITHIN / 2 + 1)) == 0


def test_names_without_end_cost_no_memory():
    """The oldest is let go; not who goes on."""
    faults = Faults()
    for n in range(REMEMBERED + 300):
        faults.note(f"n{n}", 1.0)
        if n % 600 == 0:
            faults.note("b", 1.0)
    assert len(faults._times) <= REMEMBERED
    assert faults.quarantined("b", 1.0)
