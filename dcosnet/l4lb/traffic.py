"""What the listeners counted, as values for those who look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from zope.interface import implementer

from dcosnet.interfaces import ITraffic
from dcosnet.l4lb.desired import Desired
from dcosnet.l4lb.ledger import Account, Ledger, counted
from dcosnet.l4lb.listener import Listener
from dcosnet.l4lb.schedule import Target
from dcosnet.l4lb.tally import CONNECT_BOUNDS, Tally
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, Use, VipTraffic
from dcosnet.model.vip import Backend, VipKey

NOT_YET = "not applied yet"
_NONE = Flows()
_Underway = Mapping[Target, tuple[int, int]]


@implementer(ITraffic)
class Traffic:
    """
    Reads the ledger when asked; nothing is counted for it on the way.

    `problems` are listeners that could not be had, `underway` the bytes of open
    connections by backend, `now` the clock of the schedules.
    """

    def __init__(
        self,
        desired: Desired,
        ledger: Ledger,
        problems: Mapping[Listener, str],
        underway: Callable[[], _Underway],
        now: Callable[[], float],
    ) -> None:
        self._desired = desired
        self._ledger = ledger
        self._problems = problems
        self._underway = underway
        self._now = now

    def traffic(self, vips: Collection[str] | None = None) -> Mapping[str, VipTraffic]:
        """See ITraffic."""
        underway, now = self._underway(), self._now()
        known = self._desired.vips
        return {key: self._vip(key, underway, now) for key in (known if vips is None else vips) if key in known}

    def used(self) -> Mapping[str, int]:
        """The VIPs for which anything was counted, each with the number of backends that this is of."""
        return {key: backends for key, backends in self._ledger.used().items() if key in self._desired.vips}

    def totals(self, vips: Collection[str]) -> Mapping[str, Flows]:
        """What these VIPs carried; many times cheaper than `traffic`."""
        underway = self._underway()
        return {
            key: flows(*self._ledger[key].sum(underway))
            for key in vips
            if key in self._ledger and key in self._desired.vips
        }

    def key(self, vip: str) -> VipKey:
        """Which VIP that is; KeyError where it is not known."""
        return self._desired.vips[vip].key

    def _vip(self, key: str, underway: _Underway, now: float) -> VipTraffic:
        account = self._ledger[key] if key in self._ledger else Account()
        total, active = account.sum(underway)
        wanted = self._desired.listeners(key)
        # A name that moved is served for a while where it was.
        listeners = (*wanted, *(one for one in account.open if one not in wanted))
        return VipTraffic(
            self._desired.vips[key].key,
            flows(total, active),
            [self._listener(one, account, underway, now) for one in listeners],
            self._desired.reasons(key),
        )

    def _listener(self, listener: Listener, account: Account, underway: _Underway, now: float) -> ListenerTraffic:
        schedule = account.open.get(listener)
        if schedule is None:
            return ListenerTraffic(listener.protocol, listener.endpoint, self._problems.get(listener, NOT_YET))
        if not schedule.targets:
            # As most are; a hundred thousand of them have to cost little.
            unused = [_unused(backend) for backend in schedule.backends]
            return ListenerTraffic(listener.protocol, listener.endpoint, self._problems.get(listener), unused)
        moved = {target.backend.endpoint: underway[target] for target in schedule.targets if target in underway}
        backends = []
        for state in schedule.tell(now):
            endpoint = state.backend.endpoint
            backends.append(
                BackendTraffic(
                    endpoint,
                    state.backend.weight,
                    flows(state.tally, state.active, *moved.get(endpoint, (0, 0))),
                    state.state,
                    state.seconds,
                    state.why,
                    state.latency,
                )
            )
        return ListenerTraffic(listener.protocol, listener.endpoint, self._problems.get(listener), backends)


def _unused(backend: Backend) -> BackendTraffic:
    return BackendTraffic(backend.endpoint, backend.weight, _NONE, Use.IN_USE if backend.weight else Use.DRAINING)


def flows(tally: Tally, active: int, to_backend: int = 0, to_client: int = 0) -> Flows:
    """A tally as a value, with flows in flight and the bytes that these have moved."""
    if not (active or counted(tally)):
        return _NONE
    return Flows(
        taken=tally.flows,
        active=active,
        failures={str(reason): count for reason, count in tally.failures.items()},
        retries=tally.retries,
        to_backend=tally.to_backend + to_backend,
        to_client=tally.to_client + to_client,
        idle_closed=tally.idle_closed,
        bounds=CONNECT_BOUNDS,
        connects=tuple(tally.connects),
        connect_seconds=tally.connect_seconds,
    )
