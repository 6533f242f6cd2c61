"""
From the VIP table to the listeners that a data plane should have.

Pure. A named VIP has one address per family that it has backends of; a VIP given
by address takes backends of that family alone. A backend that is itself one of
our listeners is left out, because a connection to it could go round for ever; a
VIP that has nothing else gets no listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from dcosnet.l4lb.addresses import Addresses, Claim, VipName
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.model.addressing import AddressRange
from dcosnet.model.cell import Changed
from dcosnet.model.net import Address
from dcosnet.model.stamp import Stamp
from dcosnet.model.vip import Vip, VipKey
from dcosnet.model.viplabels import dns_name, hash_text

_UNSTAMPED = Stamp(0, 0, "")


@attrs.frozen
class Problem:
    """Why something of a VIP is not served: what, and the reason, for people."""

    subject: str
    reason: str


class Desired:
    """
    The listeners for a table of VIPs, kept up to date by changed keys.

    Whatever the grouping of changes, the result equals that of the last table
    taken as a whole.
    """

    def __init__(self, ranges: Sequence[AddressRange]) -> None:
        self._names = {given.first.version: Addresses(given) for given in ranges}
        self._vips: dict[str, Vip] = {}
        self._members: dict[VipName, set[str]] = {}
        self._whole: dict[str, dict[Listener, Service]] = {}
        """By VIP, what it asks for before loops are left out."""
        self._listeners: dict[Listener, str] = {}
        self._pointing: dict[Listener, set[str]] = {}
        """By listener that a backend would be, the VIPs with such a backend."""
        self._reserved: frozenset[Address] | None = frozenset()
        """The addresses of VIPs that are given by address; None when they are to be collected anew."""
        self._absent: frozenset[Listener] = frozenset()
        """Listeners that could not be had: nothing goes round through them."""
        self._refused: dict[str, tuple[Problem, ...]] = {}
        self._served: dict[str, tuple[Listener, ...]] = {}
        self._services: dict[Listener, Service] = {}

    @property
    def services(self) -> Mapping[Listener, Service]:
        """What should listen; a new mapping after each update that changed it."""
        return self._services

    @property
    def vips(self) -> Mapping[str, Vip]:
        """The table; a live view."""
        return self._vips

    def listeners(self, key: str) -> Sequence[Listener]:
        """Those of `services` that are for a VIP."""
        return self._served.get(key, ())

    def reasons(self, key: str) -> Sequence[str]:
        """Why something of a VIP is not in `services`."""
        out = [f"{problem.subject}: {problem.reason}" for problem in self._refused.get(key, ())]
        name = _name(self._vips[key].key)
        if name is not None:
            out += [_taken(one.range) for one in self._names.values() if name in one.exhausted]
        return out

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is not served, and why: loops, and names that found no address."""
        out = [problem for key in sorted(self._refused) for problem in self._refused[key]]
        for addresses in self._names.values():
            out += [
                Problem(f"{name.name}.{name.framework}", _taken(addresses.range))
                for name in sorted(addresses.exhausted, key=lambda one: (one.name, one.framework))
            ]
        return tuple(out)

    @property
    def refused(self) -> int:
        """How many backends are left out because they are VIPs."""
        return sum(map(len, self._refused.values()))

    def update(self, vips: Mapping[str, Vip], changed: Changed) -> frozenset[Listener]:
        """Take the table and the keys that changed in it, None for all; the listeners whose service changed."""
        keys = self._vips.keys() | vips.keys() if changed is None else changed
        touched = {key for key in keys if self._vips.get(key) != vips.get(key)}
        names: set[VipName] = set()
        for key in touched:
            names |= self._replace(key, vips.get(key))
        for name in self._renumber(names):
            touched |= self._members.get(name, set())
        return self._serve(touched)

    def take_absent(self, listeners: Iterable[Listener]) -> frozenset[Listener]:
        """
        Hear which listeners could not be had, all of them; the listeners whose service changed.

        Or a label that names the address and port of somebody's backend, where
        it cannot listen, would take that backend from all others.
        """
        absent = frozenset(listeners)
        moved = absent ^ self._absent
        self._absent = absent
        return self._serve({key for one in moved for key in self._pointing.get(one, ())})

    def _replace(self, key: str, vip: Vip | None) -> set[VipName]:
        """Take one VIP; gives the name whose claims may have changed."""
        names = set()
        old = self._vips.pop(key, None)
        if old is not None and (name := _name(old.key)) is not None:
            self._members[name].discard(key)
            names.add(name)
        if vip is not None:
            self._vips[key] = vip
            if (name := _name(vip.key)) is not None:
                self._members.setdefault(name, set()).add(key)
                names.add(name)
        if (old is None) != (vip is None) and not names:
            self._reserved = None
        for name in names:
            if not self._members[name]:
                del self._members[name]
        return names

    def _renumber(self, names: Iterable[VipName]) -> set[VipName]:
        """Give the names their addresses; the names that have others now."""
        reserved = self._reserved
        if reserved is None:
            found = (vip.key.address for vip in self._vips.values())
            reserved = self._reserved = frozenset(address for address in found if address is not None)
        moved: set[VipName] = set()
        for version, addresses in self._names.items():
            moved |= addresses.update({name: self._claim(name, version) for name in names}, reserved)
        return moved

    def _claim(self, name: VipName, version: int) -> Claim | None:
        vips = [self._vips[key] for key in self._members.get(name, ())]
        if not any(backend.address.version == version for vip in vips for backend in vip.backends):
            return None
        stamps = [vip.since for vip in vips if vip.since is not None]
        return Claim(hash_text(vips[0].key), min(stamps, default=_UNSTAMPED))

    def _serve(self, touched: set[str]) -> frozenset[Listener]:
        """Make the services of these VIPs anew, and of those that a listener's coming or going concerns."""
        concerned = set(touched)
        for key in touched:
            concerned |= self._withdraw(key)
        for key in touched & self._vips.keys():
            concerned |= self._propose(key)
        before = self._services
        listeners: set[Listener] = set()
        fresh: dict[Listener, Service] = {}
        for key in concerned:
            self._refused.pop(key, None)
            listeners.update(self._served.pop(key, ()))
        for key in concerned:
            if allowed := self._allowed(key):
                self._served[key] = tuple(allowed)
                fresh |= allowed
        listeners |= fresh.keys()
        changed = frozenset(one for one in listeners if before.get(one) != fresh.get(one))
        if changed:
            services = self._services = dict(before)
            for listener in changed - fresh.keys():
                del services[listener]
            services |= {listener: fresh[listener] for listener in changed & fresh.keys()}
        return changed

    def _withdraw(self, key: str) -> set[str]:
        """Take back what a VIP asked for; the VIPs that point at it."""
        concerned: set[str] = set()
        for listener, service in self._whole.pop(key, {}).items():
            del self._listeners[listener]
            concerned |= self._pointing.get(listener, set())
            for target in set(_targets(listener, service)):
                self._unpoint(target, key)
        return concerned

    def _propose(self, key: str) -> set[str]:
        """Put down what a VIP asks for; the VIPs that point at it."""
        concerned: set[str] = set()
        whole = self._whole[key] = dict(self._listen(self._vips[key]))
        for listener, service in whole.items():
            self._listeners[listener] = key
            for target in _targets(listener, service):
                self._pointing.setdefault(target, set()).add(key)
        for listener in whole:
            concerned |= self._pointing.get(listener, set())
        return concerned

    def _unpoint(self, target: Listener, key: str) -> None:
        keys = self._pointing[target]
        keys.discard(key)
        if not keys:
            del self._pointing[target]

    def _listen(self, vip: Vip) -> Iterator[tuple[Listener, Service]]:
        name = _name(vip.key)
        if name is None:
            assert vip.key.address is not None, vip.key
            homes: list[Address] = [vip.key.address]
        else:
            homes = [one.given[name] for one in self._names.values() if name in one.given]
        for home in homes:
            backends = tuple(backend for backend in vip.backends if backend.address.version == home.version)
            if backends:
                yield (
                    Listener(vip.key.protocol, home, vip.key.port),
                    Service(vip.key, backends, dns_name(vip.key)),
                )

    def _goes_round(self, target: Listener, key: str) -> bool:
        """Whether a backend of a VIP is a listener; also one that is not there, if it is the VIP's own."""
        owner = self._listeners.get(target)
        return owner is not None and (owner == key or target not in self._absent)

    def _allowed(self, key: str) -> dict[Listener, Service]:
        """The VIP's services without backends that are listeners."""
        out, refused = {}, []
        for listener, service in self._whole.get(key, {}).items():
            loops = {target for target in _targets(listener, service) if self._goes_round(target, key)}
            if not loops:
                out[listener] = service
                continue
            refused += [
                Problem(f"{key} -> {target.endpoint}", f"this backend is the VIP {self._listeners[target]} itself")
                for target in sorted(loops, key=str)
            ]
            backends = tuple(
                backend
                for backend in service.backends
                if Listener(listener.protocol, backend.address, backend.port) not in loops
            )
            if backends:
                out[listener] = attrs.evolve(service, backends=backends)
        if refused:
            self._refused[key] = tuple(refused)
        return out


def _taken(given: AddressRange) -> str:
    """Why a name found no address."""
    return f"all addresses of {given} are taken"


def _name(key: VipKey) -> VipName | None:
    return None if key.name is None else VipName(key.name, key.framework or "")


def _targets(listener: Listener, service: Service) -> Iterator[Listener]:
    for backend in service.backends:
        yield Listener(listener.protocol, backend.address, backend.port)
