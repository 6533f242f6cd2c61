"""
The root errors. Each carries data; its sentence is made in `__str__`.

DNS failures are not here: they use `twisted.names.error` and become rcodes in
`dns/reply`. A broken invariant of ours is an AssertionError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class DcosnetError(Exception):
    """The root of all errors that dcosnet raises on purpose."""


class ConfigError(DcosnetError):
    """
    One thing wrong with the configuration.

    `path` is the dotted key ("dns.cache_size"), `origin` where the value came
    from (a file, an environment variable, `--set`) or "" when it is absent.
    """

    def __init__(self, path: str, reason: str, origin: str = "") -> None:
        super().__init__(path, reason, origin)
        self.path = path
        self.reason = reason
        self.origin = origin

    def __str__(self) -> str:
        place = f"{self.origin}: " if self.origin else ""
        return f"{place}{self.path}: {self.reason}" if self.path else f"{place}{self.reason}"


class ConfigErrors(DcosnetError):  # noqa: N818 - it holds several
    """All that is wrong with the configuration, found in one reading."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class AssemblyError(DcosnetError):
    """The enabled plugins do not fit together; the text is one line for the console."""


class PeerError(DcosnetError):
    """The remote sent nonsense: count, drop, disconnect."""


class DataPlaneError(DcosnetError):
    """A change could not be carried out; `retryable` says whether another try can help."""

    def __init__(self, change: object, reason: str, *, retryable: bool = True) -> None:
        super().__init__(change, reason, retryable)
        self.change = change
        self.reason = reason
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.change}: {self.reason}"
