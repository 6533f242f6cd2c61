"""Long replies in parts, with the reactor's other work between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from twisted.internet.defer import Deferred

from dcosnet.model.cell import Later

T = TypeVar("T")


def gather(parts: Iterator[T], size: int, later: Later) -> list[T] | Deferred[list[T]]:
    """
    All that the iterator gives, `size` parts a turn; at once when these are all.

    What it raises fails the Deferred; who cancels it is asked for no more.
    """
    got = list(islice(parts, size))
    if len(got) < size:
        return got
    done: Deferred[list[T]] = Deferred()

    def go_on() -> None:
        if done.called:
            return
        try:
            more = list(islice(parts, size))
        except Exception:  # noqa: BLE001 - it is the caller's, who waits for it
            done.errback()
            return
        got.extend(more)
        if len(more) < size:
            done.callback(got)
        else:
            later(go_on)

    later(go_on)
    return done
