"""
A program that runs while something is done for it from time to time.

Signals are taken one at a time by waiting for them, not by handlers: so the
program's end, a signal to pass on and the next due work are one queue, and
nothing can interrupt the work itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

_FORWARDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_WAITED = _FORWARDED | {signal.SIGCHLD}
# Python ignores these two; a program expects them as they are by default.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
# si_code of a signal that the kernel sent, as for Ctrl-C: the terminal gives
# that to the whole foreground group, so the program has it already.
_SI_KERNEL = 0x80


def run(program: Sequence[str], work: Callable[[], float], end: Callable[[], None], first: float) -> int:
    """
    Run the program to its end and give its exit status, 128 and the signal's number if one killed it.

    `work` is called after `first` seconds, then after as many as it returns;
    `end` when the program has ended. TERM, INT and HUP go to the program; while
    `work` runs they wait. Raises OSError when the program cannot be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    # Whoever started us may have had it ignored, and then nobody is told of the end.
    reaping = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        pid = os.posix_spawnp(program[0], list(program), os.environ, setsigmask=before, setsigdef=_RESTORED)
        status = _attend(pid, work, first)
        end()
    finally:
        signal.signal(signal.SIGCHLD, reaping)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return status


def _attend(pid: int, work: Callable[[], float], first: float) -> int:
    due = time.monotonic() + first
    while True:
        received = signal.sigtimedwait(_WAITED, max(0.0, due - time.monotonic()))
        if received is None:
            due = time.monotonic() + work()
        elif received.si_signo == signal.SIGCHLD:
            # One that was only stopped is not waited for.
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif received.si_code != _SI_KERNEL:
            os.kill(pid, received.si_signo)
