"""What the listeners counted, as values for those who look."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

from dcosnet.l4lb.ledger import Ledger
from dcosnet.l4lb.outliers import REST, ROW
from dcosnet.l4lb.schedule import Pick, Schedule
from dcosnet.l4lb.tally import Reason
from dcosnet.l4lb.traffic import Traffic
from dcosnet.model.traffic import Use
from dcosnet.model.vip import Vip

from .rig import backend, listener, service


def test_each_backend_tells_whether_it_rests_and_why_and_what_moved() -> None:
    home = listener(80)
    key = service(home).vip
    backends = (backend(1), backend(2))
    desired = SimpleNamespace(
        vips={str(key): Vip(key, backends)}, listeners=lambda _key: [home], reasons=lambda _key: ()
    )
    schedule, ledger = Schedule(Pick.LEAST, Random(1)), Ledger()
    schedule.update(backends)
    ledger.opened(home, str(key), schedule)
    moved = {}
    traffic = Traffic(desired, ledger, {}, lambda: moved, lambda: 110.0)
    assert [one.flows.used for one in traffic.traffic()[str(key)].backends()] == [False, False], "before any flow"
    schedule.pick(100.0)
    bad, good = schedule.targets
    for _ in range(ROW):
        schedule.failed(bad, 100.0, Reason.REFUSED)
    schedule.worked(good, 100.0, 0.001)
    moved[good] = (3, 4)
    told = list(traffic.traffic()[str(key)].backends())
    assert [(one.use, one.seconds, one.why) for one in told] == [
        (Use.RESTING, REST - 10.0, "5 in a row: refused"),
        (Use.IN_USE, 0.0, None),
    ]
    assert [one.flows.failures["refused"] for one in told] == [ROW, 0]
    assert (told[1].flows.to_backend, told[1].flows.to_client) == (3, 4)
