"""
Who may ask. Decided by the sender's address alone, before anything else.

UDP senders can be forged; a reply to one that is refused is no longer than its
question, so that nothing is gained by forging.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

LOCAL = "local"
_LOCAL = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
_REMEMBERED = 8192


def parse_network(text: str) -> tuple[Network, ...]:
    """What an entry of `allow` means. Raises ValueError with a sentence for people."""
    if text == LOCAL:
        return _LOCAL
    try:
        return (ip_network(text),)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither {LOCAL!r} nor a network such as 10.0.0.0/8: {error}") from None


class AccessList:
    """Networks whose addresses may ask; `known` remembers verdicts by the address's text."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self.known: dict[str, bool] = {}

    def allows(self, host: str) -> bool:
        """Whether this address may ask; an IPv6 zone ("%eth0") does not count."""
        verdict = self.known.get(host)
        if verdict is None:
            address = ip_address(host.partition("%")[0])
            verdict = any(address in network for network in self._networks)
            if len(self.known) >= _REMEMBERED:
                self.known.clear()  # forged senders come in any number
            self.known[host] = verdict
        return verdict
