"""
What lasts, kept out of the garbage collector's sight.

The collector looks for cycles by walking all that it knows, and stops the
process for that: 300 ms with the read models of 50 000 tasks. What it was told
to keep it does not walk again. Such a thing still goes when nothing refers to
it any more, as nearly everything here does; only a cycle among kept things
that becomes garbage later stays for ever.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

YOUNG = 5000
"""
Things made, and still there, after which the collector looks at them.

Python's own 700 are the documents of fifteen tasks, which are gone a moment
later without it. To look at 5 000 takes a few milliseconds.
"""


def begin() -> None:
    """Take the modules and parts of a process for lasting, and look for garbage less often from now on."""
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    keep()
    give_back()


def keep() -> None:
    """
    Take what there is now for lasting, but for cycles that are garbage already.

    To be called again while things are made, every few hundred: it walks
    what was made since the last time, which takes some milliseconds then.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """
    Return to the system what is free, where the C library can (malloc_trim(3)).

    It takes some milliseconds for a hundred megabytes: to be called after much
    has gone for good.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
