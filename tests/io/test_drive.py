"""The core driver: five verbs, one delayed call, and failures that are counted."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from dcosnet.io.drive import Drive


class Echo:
    """Says what it heard, and is due whenever it was told so."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.output: list[str] = []
        self.events: list[str] = []

    def feed(self, data: str, now: float) -> None:
        if data == "break":
            raise RuntimeError("broken")
        if data.startswith("at "):
            self.at = float(data[3:])
            return
        self.output.append(data)
        self.events.append(f"{data} at {now:g}")

    def due(self) -> float | None:
        return self.at

    def tick(self, now: float) -> None:
        self.at = None
        self.output.append(f"tick {now:g}")

    def take_output(self) -> list[str]:
        taken, self.output = self.output, []
        return taken

    def take_events(self) -> list[str]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def drive(clock: Clock, said: list[str]) -> Drive[str, str, str]:
    drive = Drive(Echo(), clock, send=said.append, tell=said.append, name="echo")
    drive.start()
    return drive


def test_what_arrives_is_answered_at_once(drive: Drive[str, str, str], clock: Clock, said: list[str]) -> None:
    """Output before events, and the time is the reactor's."""
    clock.advance(3)
    drive.feed("hello")
    assert said == ["hello", "hello at 3"]
    assert clock.getDelayedCalls() == []


def test_one_delayed_call_follows_the_due_time(drive: Drive[str, str, str], clock: Clock, said: list[str]) -> None:
    """It moves both ways and goes away."""
    drive.feed("at 9")
    drive.feed("at 5")
    (call,) = clock.getDelayedCalls()
    assert call.getTime() == 5
    clock.advance(5)
    assert said == ["tick 5"]
    assert clock.getDelayedCalls() == []


def test_a_send_that_calls_back_waits_its_turn(clock: Clock) -> None:
    """The core is never entered from within."""
    said: list[str] = []

    def send(text: str) -> None:
        said.append(text)
        if text == "first":
            drive.feed("second")
            assert said == ["first"]

    drive = Drive(Echo(), clock, send=send, tell=lambda _: None, name="echo")
    drive.start()
    drive.feed("first")
    assert said == ["first", "second"]


def test_a_failure_is_logged_and_counted_and_the_core_goes_on(
    drive: Drive[str, str, str], clock: Clock, said: list[str]
) -> None:
    """One bad datagram must not end a protocol."""
    seen: list[object] = []
    observe = lambda event: seen.append(event.get("log_failure"))
    globalLogPublisher.addObserver(observe)
    try:
        drive.feed("break")
    finally:
        globalLogPublisher.removeObserver(observe)
    assert drive.failures == 1
    assert "broken" in str(seen[0])
    drive.feed("hello")
    assert said == ["hello", "hello at 0"]


def test_a_core_that_always_fails_leaves_the_reactor_alone(clock: Clock) -> None:
    """It is asked once a second, not in a circle."""

    class Broken(Echo):
        at_all = 0

        def tick(self, now: float) -> None:
            self.at_all += 1
            raise RuntimeError("broken")

    core = Broken()
    core.at = 0.0
    drive = Drive(core, clock, send=lambda _: None, tell=lambda _: None, name="broken")
    drive.start()
    clock.pump([0.0] * 50)
    clock.advance(1)
    assert core.at_all <= 2
    drive.stop()


def test_after_stop_nothing_is_left(drive: Drive[str, str, str], clock: Clock, said: list[str]) -> None:
    """Neither a delayed call nor an ear."""
    drive.feed("at 5")
    drive.stop()
    drive.stop()
    drive.feed("hello")
    assert clock.getDelayedCalls() == []
    assert said == []
