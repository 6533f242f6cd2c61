"""Who has sent nonsense, and is not talked to for a while."""

from __future__ import annotations

MANY, WITHIN, FOR = 3, 600.0, 600.0
"""So many malformed frames within so many seconds, and there are no links with that peer for as long."""

REMEMBERED = 1024


class Faults:
    """By name where it is proven, else by address. Bounded: of too many the oldest is let go."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    def note(self, who: str, now: float) -> None:
        """It has sent what is no frame, or breaks the rules."""
        times = [at for at in self._times.pop(who, []) if now - at < WITHIN]
        self._times[who] = [*times, now][-MANY:]
        if len(self._times) > REMEMBERED:
            del self._times[next(iter(self._times))]

    def quarantined(self, who: str, now: float) -> float:
        """Seconds for which it is not talked to; 0 when it is."""
        times = self._times.get(who, [])
        if len(times) < MANY or times[-1] - times[0] > WITHIN:
            return 0.0
        return max(0.0, times[-1] + FOR - now)
