"""A minute of octets that are nearly frames, and what they make the core keep."""

from pathlib import Path
from random import Random
from time import monotonic

import pytest

from dcosnet.testing.fuzz_gossip import Mutator, Target, load, resident

pytestmark = pytest.mark.system

CORPUS = Path(__file__).resolve().parents[1] / "gossip" / "corpus"
SECONDS = 60.0


def test_a_minute_of_nonsense_costs_no_memory():
    """Who sends it gets its links closed; nothing of it stays."""
    rng = Random(4)
    mutator, target = Mutator(load(CORPUS), rng), Target(rng)
    for _ in range(20_000):
        target.feed(mutator.frame())
    before, end = resident(), monotonic() + SECONDS
    while monotonic() < end:
        for _ in range(1000):
            target.feed(mutator.frame())
    assert target.closed["malformed"] > 10_000
    assert resident() - before < 16 << 20
