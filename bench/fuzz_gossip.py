#!/usr/bin/env python3
"""
Ten million frames that are nearly right, fed to the core of gossip.

Prints how links ended, and how much memory stayed; fails if anything left the
core, or if it kept 16 MiB. No peer is measured: it is about our own bound.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random

from dcosnet.testing.fuzz_gossip import Mutator, Target, load, resident

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "gossip" / "corpus"
BOUND = 16 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    rng = Random(options.seed)
    mutator, target = Mutator(load(CORPUS), rng), Target(rng)
    for _ in range(min(20_000, options.frames)):  # what is made once is not growth
        target.feed(mutator.frame())
    before, began = resident(), time.process_time()
    while target.frames < options.frames:
        target.feed(mutator.frame())
    grown = resident() - before

    print(f"{target.frames} frames in {time.process_time() - began:.0f} s of CPU, seed {options.seed}")
    for code, count in target.closed.most_common():
        print(f"{code:>12} {count:10}")
    print(f"memory grew by {grown / (1 << 20):.1f} MiB; {BOUND >> 20} are allowed")
    if grown >= BOUND:
        sys.exit("the core keeps what it is fed")


if __name__ == "__main__":
    main()
