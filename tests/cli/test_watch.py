"""Rates between two looks, and looking again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.cli import output
from dcosnet.cli.api import TransientError
from dcosnet.cli.failure import Exit
from dcosnet.cli.output import print_table
from dcosnet.cli.rates import NONE, Pace, quantile, rates
from dcosnet.cli.verbs import vips as verb
from dcosnet.cli.watch import watch


def counts(connections: int = 0, failures: int = 0, octets: int = 0, connects: tuple[int, ...] = (0, 0, 0)) -> Any:
    return {
        "connections": connections,
        "active": 0,
        "failures": {"refused": failures},
        "retries": 0,
        "bytes": {"to_backend": octets, "to_client": 2 * octets},
        "idle_closed": 0,
        "connect": {"bounds": [0.001, 0.003], "counts": list(connects), "seconds": 0.0},
    }


def test_rates_are_per_second_and_of_what_came_in_between() -> None:
    rate = rates(counts(10, 1, 100, (9, 1, 0)), counts(30, 2, 300, (9, 21, 0)), 4.0)
    assert (rate.connections, rate.failures, rate.to_backend, rate.to_client) == (5.0, 0.25, 50.0, 100.0)
    assert rate.p50 == pytest.approx(0.002)
    assert rate.p99 == pytest.approx(0.00298)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, counts(1)),
        (counts(5), counts(1)),
        (counts(1, 2), counts(1, 1)),
        (counts(1, 0, 5), counts(1, 0, 4)),
        (counts(1, 0, 0, (1, 0, 0)), counts(1)),
        (counts(1, 0, 0, (1, 0)), counts(1)),
    ],
)
def test_what_is_new_or_went_backwards_has_no_rate(before: Any, now: Any) -> None:
    """A node that started anew would show a rate below nothing."""
    assert rates(before, now, 1.0) is None


def test_a_backend_with_its_first_flows_has_a_rate() -> None:
    """Before them it has no counts at all."""
    assert rates(NONE, counts(4, 0, 0, (4, 0, 0)), 2.0).connections == 2.0
    assert rates(NONE, NONE, 2.0).p50 is None


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_quantiles_grow_with_the_share_and_stay_within_the_bounds(some: list[int], one: float, two: float) -> None:
    bounds = [0.1, 0.5, 2.0]
    lower, upper = (quantile(share, bounds, some) for share in sorted((one, two)))
    if not any(some):
        assert lower is None
        return
    assert 0 <= lower <= upper <= 2.0
    below = sum(count for bound, count in zip(bounds, some, strict=False) if bound <= upper)
    assert below <= sum(some)


def test_each_look_has_the_rates_since_the_one_before() -> None:
    """Of the VIP and of each backend; one that comes later has none at first."""

    def look(total: int, *backends: tuple[int, Any]) -> list[Any]:
        some = [{"ip": "10.0.0.1", "port": port, "counts": told} for port, told in backends]
        return [{"vip": "web:80", "protocol": "tcp", "total": counts(total), "backend": some}]

    pace = Pace()
    (first,) = pace.take(look(1, (1, None)), 100.0)
    assert first["rates"] is first["backend"][0]["rates"] is None
    (second,) = pace.take(look(9, (1, counts(4)), (2, counts(4))), 102.0)
    assert second["rates"]["connections"] == 4.0
    assert second["backend"][0]["rates"]["connections"] == 2.0
    assert second["backend"][1]["rates"] is None
    pace.forget()
    assert pace.take(look(9), 104.0)[0]["rates"] is None


class Life:
    """A clock whose sleeper ends it with Ctrl-C after some turns; each answer takes as long as it is told."""

    def __init__(self, *answers: Any, takes: float = 0.0) -> None:
        self.now = 50.0
        self._answers = list(answers)
        self._takes = takes
        self.slept: list[float] = []
        self.shown: list[tuple[Any, float]] = []
        self.lost: list[str] = []

    def ask(self) -> Any:
        answer = self._answers.pop(0)
        self.now += self._takes
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds
        if not self._answers:
            raise KeyboardInterrupt

    def live(self, period: float = 1.0) -> None:
        show: Callable[[Any, float], None] = lambda told, now: self.shown.append((told, round(now, 6)))
        watch(self.ask, show, lambda error: self.lost.append(str(error)), period, lambda: self.now, self.sleep)


GONE = TransientError(Exit.UNREACHABLE, "gone", "why", "try")


def test_it_looks_in_step_and_ends_with_ctrl_c() -> None:
    """What a look takes is part of the period."""
    life = Life("a", "b", "c", takes=0.25)
    life.live()
    assert life.shown == [("a", 50.25), ("b", 51.25), ("c", 52.25)]
    assert life.slept == [0.75, 0.75, 0.75]


def test_a_look_that_takes_too_long_is_not_made_up_for() -> None:
    life = Life("a", "b", takes=3.0)
    life.live()
    assert life.slept == [0.0, 0.0]


def test_time_that_passes_before_it_sleeps_is_no_error() -> None:
    """No clock stands still between two questions, and a sleep below nothing is refused."""
    ticks = iter(range(1, 100))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise KeyboardInterrupt

    watch(lambda: "a", lambda *_: None, lambda _: None, 0.5, lambda: float(next(ticks)), sleep)
    assert slept == [0.0]


def test_ctrl_c_in_the_midst_of_a_look_ends_it_as_well() -> None:
    life = Life("a", KeyboardInterrupt())
    life.live()
    assert [told for told, _ in life.shown] == ["a"]


def test_a_daemon_that_restarts_is_waited_for() -> None:
    """One that was never there is not: who mistypes its address wants to know."""
    life = Life("a", GONE, "b")
    life.live()
    assert [told for told, _ in life.shown] == ["a", "b"]
    assert len(life.lost) == 1
    with pytest.raises(TransientError):
        Life(GONE, "b").live()


class Terminal:
    """A standard output that is one."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_busiest_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of what was there; how many more there are is told."""
    drawn: list[list[str]] = []
    said: list[str] = []
    monkeypatch.setattr(verb.sys, "stdout", Terminal())
    monkeypatch.setattr(verb, "print_table", lambda _headings, rows, _width: drawn.append([row[0] for row in rows]))
    monkeypatch.setattr(click, "clear", lambda: said.append("clear"))
    monkeypatch.setattr(click, "echo", said.append)
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("COLUMNS", "80")
    pace = Pace()
    for second in range(2):
        looks = pace.take(
            [
                {"vip": name, "protocol": "tcp", "state": "served", "total": counts(second * busy), "backend": []}
                for name, busy in (("a", 1), ("b.shop.l4lb.thisdcos.directory:80", 9), ("c", 0), ("d", 5))
            ],
            float(second + 1),
        )
    verb._repaint(looks, detail=False)
    assert drawn == [["b.shop:80", "d"]]
    assert said == ["clear", "and 2 more"]


def test_on_a_terminal_each_row_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is folded would push the busiest out of sight."""
    said: list[str] = []
    monkeypatch.setattr(output.sys, "stdout", Terminal())
    monkeypatch.setattr(click, "echo", said.append)
    print_table(["VIP", "STATE"], [["w" * 30, "served"], ["x", "partly"]], 36)
    assert said == ["VIP".ljust(32) + "STAT", "w" * 30 + "  serv", "x".ljust(32) + "part"]
