"""What the balancer counts; plain integers, because hot paths add to them."""

from __future__ import annotations

from dcosnet.l4lb.tally import Reason


class Counts:
    """Counts since the start, of all listeners together."""

    __slots__ = (
        "accept_errors",
        "accept_paused",
        "active",
        "connect_refused",
        "connect_timeout",
        "connect_unreachable",
        "connections",
        "refused",
        "retries",
        "to_backend",
        "to_client",
        "udp_dropped",
    )

    def __init__(self) -> None:
        self.connections = 0
        """TCP connections accepted."""
        self.active = 0
        """TCP connections open now, also those that wait for a backend."""
        self.connect_refused = 0
        self.connect_timeout = 0
        self.connect_unreachable = 0
        """Any other failure to reach a backend."""
        self.retries = 0
        """Times a flow went on to another backend."""
        self.refused = 0
        """Flows for which there was no backend."""
        self.to_backend = 0
        self.to_client = 0
        """Bytes of TCP connections that have ended, and of all datagrams."""
        self.accept_errors = 0
        """Connections that could not be accepted for want of descriptors or memory."""
        self.accept_paused = 0
        """Times that accepting paused because of the limit of connections."""
        self.udp_dropped = 0
        """Datagrams that could not be sent on."""

    def failed(self, reason: Reason) -> None:
        """A backend did not take a flow."""
        if reason is Reason.REFUSED:
            self.connect_refused += 1
        elif reason is Reason.TIMEOUT:
            self.connect_timeout += 1
        else:
            self.connect_unreachable += 1
