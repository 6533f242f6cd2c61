"""
The changes that lead from the listeners that are there to those that should be.

Pure. New listeners come first, then listeners take their new backends, each in
one step, and only then listeners go: every prefix of a plan keeps what both
sides have reachable.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dcosnet.l4lb.listener import Listener, Service


@attrs.frozen
class Listen:
    """Begin to listen for a service."""

    listener: Listener
    service: Service

    def __str__(self) -> str:
        return f"listen on {self.listener}"


@attrs.frozen
class Serve:
    """Replace the backends of a listener, all at once; established flows stay where they are."""

    listener: Listener
    service: Service

    def __str__(self) -> str:
        return f"serve {self.listener}"


@attrs.frozen
class Unlisten:
    """Stop to listen; established connections go on."""

    listener: Listener

    def __str__(self) -> str:
        return f"stop listening on {self.listener}"


Change = Listen | Serve | Unlisten


def plan(desired: Mapping[Listener, Service], actual: Mapping[Listener, Service]) -> tuple[Change, ...]:
    """Ordered changes; empty when both are equal."""
    # One look-up for each, and identity first: of ten thousand mostly none has changed.
    differ = [
        (listener, service, there)
        for listener, service in desired.items()
        if (there := actual.get(listener)) is not service and there != service
    ]
    come = [Listen(listener, service) for listener, service, there in differ if there is None]
    serve = [Serve(listener, service) for listener, service, there in differ if there is not None]
    go = [Unlisten(listener) for listener in actual if listener not in desired]
    return (*come, *serve, *go)
