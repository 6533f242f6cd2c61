"""
What this node says of itself, and when it says it anew.

Pure. Who wants to hear from all nodes writes a number, greater than any that he
knows, to `refresh/<his name>`. A node that hears a number greater than it has
answered writes its own key again, with that number and the time. So who asks
needs nobody's clock to tell an answer from what stood there before, and however
many ask at once, each node answers them with one write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from dcosnet.model.node import Node
from dcosnet.views.values import REFRESH_MAX, encode_node, encode_refresh


class Presence:
    """The keys `node/<name>` and `refresh/<name>` of this node; `due` is whether the first has to be written."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked = 0
        self.due = True

    def hear(self, number: int) -> None:
        """Somebody asks with this number."""
        if number > self._asked:
            self._asked = number
            self.due = True

    def say(self, wall: float) -> Mapping[str, bytes]:
        """What to write now; `wall` in seconds since the epoch."""
        self.due = False
        said = attrs.evolve(self._node, updated=wall, refresh=self._asked)
        return {f"node/{self._node.name}": encode_node(said)}

    def ask(self, nodes: Iterable[Node]) -> tuple[int, Mapping[str, bytes]]:
        """The number to ask these and all other nodes with, and what to write for it."""
        number = min(max((self._asked, *(node.refresh for node in nodes))) + 1, REFRESH_MAX)
        return number, {f"refresh/{self._node.name}": encode_refresh(number)}
