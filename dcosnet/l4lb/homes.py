"""
Makes VIP addresses this host's own, by routes in the kernel's table `local`.

The kernel's table is the only state: what an earlier process left is found there
and kept, so a restart interrupts nobody. Only routes of our own protocol number
are ever removed.

It asks the kernel on the reactor's thread: a question is answered from memory in
some 20 us, and a plane that waited for a thread in the midst of a change would
have to guard itself against the next one.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from twisted.logger import Logger

from dcosnet.errors import DcosnetError
from dcosnet.io.host import NET_ADMIN, capable
from dcosnet.io.rtnetlink import LOCAL, TABLE_LOCAL, TABLE_MAIN, UNICAST, Route, Rtnetlink
from dcosnet.l4lb.routes import PROTOCOL, Known, Network, covering, hides, is_local, networks, single
from dcosnet.model.addressing import AddressRange
from dcosnet.model.net import Address

log = Logger()


class AddressError(DcosnetError):
    """An address that does not become this host's own, with the reason for people."""


class Homes:
    """
    The addresses of these ranges and of single VIPs.

    With `change` False the kernel is asked and never changed.
    """

    def __init__(self, ranges: Sequence[AddressRange], *, change: bool) -> None:
        self._ranges = ranges
        self._change = change
        self._netlink: Rtnetlink | None = None
        self._ours: set[Network] = set()
        """Routes with our number, as last listed or changed by us."""
        self._singles: set[Network] = set()
        """Addresses in use that have a route of their own."""
        self._lent: set[Network] = set()
        """Addresses in use outside of the ranges that something else makes local, which may go."""
        self._problems: dict[AddressRange, str] = {}

    @property
    def problems(self) -> Sequence[tuple[str, str]]:
        """Ranges that are not local: which, and why; in the order of the settings."""
        return [(str(given), self._problems[given]) for given in self._ranges if given in self._problems]

    def covering(self, address: Address) -> Network:
        """What would have to be local for an address to be."""
        return covering(address, self._ranges)

    def close(self) -> None:
        """Routes stay: who connects before the next process listens is refused by this host, not sent away."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def keep(self) -> None:
        """Make local what is not: the ranges, and addresses that others took away. Never raises."""
        try:
            self._list()
            versions = [version for version in (4, 6) if self._has(version)]
        except OSError as error:
            for given in self._ranges:
                self._note(given, f"the kernel's routes cannot be read ({error.strerror})" if networks(given) else None)
            return
        for given in self._ranges:
            if given.first.version in versions:
                self._check(given)
            else:
                self._note(given, None)
        self._hold()

    def prepare(self, address: Address) -> bool:
        """Whether an address is this host's, made so if it may. Raises AddressError where that would harm others."""
        if address.is_loopback:
            return True
        try:
            found = self._ask().match(address)
        except OSError:
            return False  # no netlink here: binding shows
        network = covering(address, self._ranges)
        if found is not None and found.kind == LOCAL:
            if self._change and network == single(address):
                own = found.protocol == PROTOCOL and found.network == network
                (self._singles if own else self._lent).add(network)
            for given in [one for one in self._problems if address in one]:
                self._check(given)  # whoever followed the remedy sees at once that it helped
            return True
        if network != single(address):
            return False  # its range is not local, and `keep` says why
        if found is not None and (reason := hides(network, [_known(found)])) is not None:
            raise AddressError(f"{reason}. Give the VIP another address, or give this one to an interface of this host")
        if not self._change or not capable(NET_ADMIN):
            return False
        try:
            self._ask().add_local(network, PROTOCOL)
        except OSError as error:
            raise AddressError(f"no local route for it: {error.strerror}") from error
        self._ours.add(network)
        self._singles.add(network)
        return True

    def release(self, address: Address) -> None:
        """Nobody listens at an address any more: take its own route away, if it has one of ours."""
        network = single(address)
        self._lent.discard(network)
        if network in self._singles:
            self._singles.discard(network)
            self._remove(network)

    def sweep(self) -> None:
        """Remove those of our routes that are for no range, and for no address that was prepared."""
        if self._change:
            for network in self._ours - self._singles - {one for given in self._ranges for one in networks(given)}:
                self._remove(network)
            self._hold()

    def _hold(self) -> None:
        """Give addresses in use a route of their own where they are local no longer."""
        for network in (self._singles | self._lent) - self._ours:
            self._try(network)
        self._singles |= self._lent & self._ours
        self._lent -= self._ours

    def _ask(self) -> Rtnetlink:
        if self._netlink is None:
            self._netlink = Rtnetlink()
        return self._netlink

    def _list(self) -> None:
        netlink = self._ask()
        self._ours = {
            route.network for version in (4, 6) for route in netlink.routes(version, TABLE_LOCAL, LOCAL, PROTOCOL)
        }

    def _has(self, version: int) -> bool:
        """Whether this host has a family at all; one without IPv6 has no trouble with an IPv6 range."""
        return version == 4 or bool(self._ask().routes(version, TABLE_LOCAL, LOCAL))

    def _check(self, given: AddressRange) -> None:
        """Make a range local, or note why it is not."""
        problem = None
        for network in networks(given):
            problem = self._try(network) or problem
        self._note(given, problem)

    def _try(self, network: Network) -> str | None:
        """Make a network local; why it is not."""
        if network in self._ours:
            return None
        try:
            found = self._ask().match(network.network_address)
            if is_local(network, None if found is None else _known(found)):
                return None
            if (reason := self._why_not(network)) is not None:
                return reason
            self._ask().add_local(network, PROTOCOL)
        except OSError as error:
            return f"It cannot be made local: {error.strerror or error}. {remedy(network)}"
        self._ours.add(network)
        log.info("{network} is local now", network=str(network))
        return None

    def _why_not(self, network: Network) -> str | None:
        routes = self._ask().routes(network.version, TABLE_MAIN, UNICAST)
        if (reason := hides(network, map(_known, routes))) is not None:
            return f"{reason}. Take another range"
        if not self._change:
            return f"It is not local, and l4lb.routes is off. {remedy(network)}"
        if not capable(NET_ADMIN):
            return f"It is not local, and making it so takes CAP_NET_ADMIN. {remedy(network)}"
        return None

    def _remove(self, network: Network) -> None:
        try:
            self._ask().remove_local(network, PROTOCOL)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.warn("the route of {network} stays: {why}", network=str(network), why=error.strerror)  # noqa: G010 - Twisted's name
                return
        self._ours.discard(network)
        log.info("{network} is local no longer", network=str(network))

    def _note(self, given: AddressRange, reason: str | None) -> None:
        """Keep the problem of a range; tell when it changes."""
        if self._problems.get(given) == reason:
            return
        if reason is None:
            del self._problems[given]
        else:
            self._problems[given] = reason
            log.warn("l4lb.named_vips {range}: {reason}", range=str(given), reason=reason)  # noqa: G010 - as above


def remedy(network: Network) -> str:
    """What to do about addresses that are not local; one line."""
    family = "-6 " if network.version == 6 else ""
    text = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
    command = f"`ip {family}route add local {text} dev lo`"
    if network.version == 6:
        return f"Give the process CAP_NET_ADMIN, run {command} as root, or leave IPv6 out of l4lb.named_vips"
    return (
        "On Linux all of 127/8 is local: take l4lb.named_vips from 127.11.0.0-127.11.255.254, "
        f"give the process CAP_NET_ADMIN, or run {command} as root"
    )


def _known(route: Route) -> Known:
    return Known(route.network, route.kind, route.on_link)
