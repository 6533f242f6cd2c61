"""
Whom to dial, and when: aims with their endpoints, and waits that grow.

An aim is a member by name, or an endpoint of whom nobody knows who is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import attrs

from dcosnet.gossip.effects import Dial

LEAST, MOST = 0.2, 5.0
"""Seconds: bounds of the wait after a dial that failed; it doubles, with full jitter."""

TIMEOUT = 1.0
AT_ONCE = 16


@attrs.define
class Aim:
    """Somebody to be dialled. `once`: no further try if this one fails."""

    key: str
    name: str | None
    endpoints: tuple[str, ...]
    at: float
    once: bool = False
    wait: float = LEAST
    turn: int = 0
    link: int | None = None


class Dials:
    """The aims; of those that are due, at most AT_ONCE are under way at a time."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._aims: dict[str, Aim] = {}
        self._of_link: dict[int, Aim] = {}

    @property
    def aims(self) -> Iterable[Aim]:
        """Everybody that is aimed at."""
        return self._aims.values()

    @property
    def under_way(self) -> bool:
        """Whether anybody is being dialled just now."""
        return bool(self._of_link)

    def __contains__(self, key: str) -> bool:
        return key in self._aims

    def aim(self, key: str, name: str | None, endpoints: tuple[str, ...], at: float, *, once: bool = False) -> None:
        """Aim at somebody; who is aimed at already keeps the time, and gets the endpoints."""
        held = self._aims.get(key)
        if held is None:
            self._aims[key] = Aim(key, name, endpoints, at, once)
        else:
            held.endpoints = endpoints

    def hurry(self, key: str, now: float) -> None:
        """Try at once, if not under way."""
        held = self._aims.get(key)
        if held is not None:
            held.at = min(held.at, now)
            held.wait = LEAST

    def postpone(self, key: str, at: float) -> None:
        """Not before that time."""
        held = self._aims.get(key)
        if held is not None:
            held.at = max(held.at, at)

    def drop(self, key: str) -> None:
        """Aim no more; a dial that is under way still ends as it ends."""
        self._aims.pop(key, None)

    def due(self) -> float | None:
        """When the next one may begin."""
        if not self._aims or len(self._of_link) >= AT_ONCE:
            return None
        return min((aim.at for aim in self._aims.values() if aim.link is None and aim.endpoints), default=None)

    def begin(self, now: float, number: int, stretch: float) -> Dial | None:
        """The next dial that is due, as link `number`; None when there is none."""
        if not self._aims or len(self._of_link) >= AT_ONCE:
            return None
        ready = (aim for aim in self._aims.values() if aim.link is None and aim.at <= now and aim.endpoints)
        aim = min(ready, key=lambda one: one.at, default=None)
        if aim is None:
            return None
        aim.link = number
        self._of_link[number] = aim
        endpoint = aim.endpoints[aim.turn % len(aim.endpoints)]
        return Dial(number, endpoint, aim.name, TIMEOUT * stretch)

    def of(self, link: int) -> Aim | None:
        """Whose dial made this link, while it is not settled."""
        return self._of_link.get(link)

    def failed(self, link: int, now: float, at_least: float = 0.0) -> Aim | None:
        """It came to nothing; the next try waits for longer."""
        aim = self._of_link.pop(link, None)
        if aim is None:
            return None
        aim.link = None
        aim.turn += 1
        aim.at = now + max(at_least, self._rng.uniform(aim.wait / 2, aim.wait))
        aim.wait = min(MOST, aim.wait * 2)
        if aim.once and self._aims.get(aim.key) is aim:
            del self._aims[aim.key]
        return aim

    def settled(self, link: int) -> None:
        """It led to somebody; who that is, the caller drops."""
        aim = self._of_link.pop(link, None)
        if aim is not None:
            aim.link = None
            if self._aims.get(aim.key) is aim:
                del self._aims[aim.key]
