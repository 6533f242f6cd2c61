"""
Which resource answers a path.

Pure. A pattern's part is literal or `<name>`, which takes one non-empty part of
a path; literal parts win over named ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import attrs

from dcosnet.interfaces import IRestResource

_COMPARED = 100  # characters of a wrong path that are looked at; comparing is quadratic


def _named(part: str) -> bool:
    return part.startswith("<") and part.endswith(">")


@attrs.frozen
class Route:
    """A pattern with its resources by method."""

    pattern: str
    resources: Mapping[str, IRestResource]

    @property
    def methods(self) -> list[str]:
        """What may be asked, sorted; HEAD goes with GET."""
        return sorted({*self.resources, *({"HEAD"} if "GET" in self.resources else ())})


class Routes:
    """All resources. Raises ValueError when two answer the same method of a pattern."""

    def __init__(self, resources: Iterable[IRestResource]) -> None:
        table: dict[str, dict[str, IRestResource]] = {}
        for resource in resources:
            if not resource.path.startswith("/"):
                raise ValueError(f"the resource path {resource.path!r} does not begin with a slash")
            methods = table.setdefault(resource.path, {})
            for method in resource.methods:
                if method in methods:
                    raise ValueError(f"two resources answer {method} {resource.path}")
                methods[method] = resource
        self._routes = sorted(
            (Route(pattern, methods) for pattern, methods in table.items()),
            key=lambda route: [_named(part) for part in route.pattern.split("/")],
        )

    def find(self, parts: Sequence[str]) -> tuple[Route, Mapping[str, str]] | None:
        """The route of a path split at its slashes and decoded, with the named parts; None if there is none."""
        for route in self._routes:
            pattern = route.pattern.split("/")[1:]
            if len(pattern) == len(parts) and all(
                bool(part) if _named(want) else part == want for want, part in zip(pattern, parts, strict=True)
            ):
                named = {want[1:-1]: part for want, part in zip(pattern, parts, strict=True) if _named(want)}
                return route, named
        return None

    def nearest(self, path: str) -> str | None:
        """The pattern that looks most like a path, or None if none does."""
        close = get_close_matches(path[:_COMPARED], [route.pattern for route in self._routes], 1, 0.5)
        return close[0] if close else None
