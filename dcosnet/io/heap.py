"""
What lasts, kept out of the garbage collector's sight.

The collector looks for cycles by walking all that it knows, and stops the
process for that: 300 ms with the read models of 50 000 tasks. What it was told
to keep it does not walk again. Such a thing still goes when nothing refers to
it any more, as nearly everything here does; only a cycle among kept things
that becomes garbage later stays for ever.
"""

from __future__ import annotations

import gc


def keep() -> None:
    """
    Take what there is now for lasting, but for cycles that are garbage already.

    To be called again while things are made, once a thousand: it walks
    what was made since the last time, which takes some milliseconds then.
    """
    gc.collect()
    gc.freeze()
