"""
Which schedules have served which VIP, so that what was counted for it is never lost while it is there.

Pure. A listener may go and another come (a name whose address moves, the first
backend of a family), and connections of one that has gone still count. With its
last listener a VIP's account is closed, and begins anew when it returns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dcosnet.l4lb.listener import Listener
from dcosnet.l4lb.schedule import Schedule, Target
from dcosnet.l4lb.tally import Tally


class Account:
    """Of one VIP: the schedules of its listeners, and what others counted before them."""

    __slots__ = ("_closed", "_former", "open")

    def __init__(self) -> None:
        self.open: dict[Listener, Schedule] = {}
        self._closed: list[Schedule] = []
        self._former = Tally()

    def close(self, listener: Listener) -> None:
        """A listener has gone; its connections may go on."""
        self._closed.append(self.open.pop(listener))
        self._settle()

    def _settle(self) -> None:
        flowing = []
        for schedule in self._closed:
            if any(target.active for target in schedule.targets) or schedule.leaving:
                flowing.append(schedule)
                continue
            self._former.add(schedule.former)
            for target in schedule.targets:
                self._former.add(target.tally)
        self._closed = flowing

    @property
    def used(self) -> bool:
        """Whether anything was counted, or is about to be."""
        return counted(self._former) or any(
            counted(schedule.former) or any(map(_used, (*schedule.targets, *schedule.leaving)))
            for schedule in (*self.open.values(), *self._closed)
        )

    def sum(self, underway: Mapping[Target, tuple[int, int]]) -> tuple[Tally, int]:
        """All that was counted, with what open connections have moved; and the flows in flight."""
        self._settle()
        total, active = Tally(), 0
        if counted(self._former):
            total.add(self._former)
        for schedule in (*self.open.values(), *self._closed):
            if counted(schedule.former):
                total.add(schedule.former)
            for target in filter(_used, (*schedule.targets, *schedule.leaving)):
                total.add(target.tally)
                active += target.active
                to_backend, to_client = underway.get(target, (0, 0))
                total.to_backend += to_backend
                total.to_client += to_client
        return total, active


class Ledger:
    """The accounts of the VIPs that are served, by str(VipKey)."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._vips: dict[Listener, str] = {}

    def __getitem__(self, vip: str) -> Account:
        """Raises KeyError where no listener is open for a VIP."""
        return self._accounts[vip]

    def __contains__(self, vip: str) -> bool:
        """Whether a listener is open for a VIP."""
        return vip in self._accounts

    @property
    def vips(self) -> Collection[str]:
        """Those that are served; a live view."""
        return self._accounts.keys()

    @property
    def used(self) -> Collection[str]:
        """Those for which anything was counted."""
        return [vip for vip, account in self._accounts.items() if account.used]

    def opened(self, listener: Listener, vip: str, schedule: Schedule) -> None:
        """From now on a listener serves a VIP by a schedule; nothing new if it does."""
        before = self._vips.get(listener)
        if before is not None and (before != vip or self._accounts[vip].open[listener] is not schedule):
            self.closed(listener)
        self._vips[listener] = vip
        self._accounts.setdefault(vip, Account()).open[listener] = schedule

    def closed(self, listener: Listener) -> None:
        """A listener serves no longer."""
        vip = self._vips.pop(listener)
        account = self._accounts[vip]
        account.close(listener)
        if not account.open:
            del self._accounts[vip]


def counted(tally: Tally) -> bool:
    """Whether there was a flow or a failure."""
    return bool(tally.flows) or any(tally.failures.values())


def _used(target: Target) -> bool:
    return bool(target.active) or counted(target.tally)
