"""Look again and again, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dcosnet.cli.api import TransientError

T = TypeVar("T")


def watch(
    ask: Callable[[], T],
    show: Callable[[T, float], None],
    lost: Callable[[TransientError], None],
    period: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Ask and show with the time of the answer, each `period` seconds; returns on Ctrl-C.

    A daemon that does not answer the first time is an error of the caller's;
    later it may be restarting, so `lost` is told and the next try waits for its turn.
    """
    answered = False
    due = now()
    try:
        while True:
            try:
                told = ask()
            except TransientError as error:
                if not answered:
                    raise
                lost(error)
            else:
                answered = True
                show(told, now())
            # A look that took longer than the period is not made up for.
            looked = now()
            due = max(due + period, looked)
            sleep(due - looked)
    except KeyboardInterrupt:
        return
