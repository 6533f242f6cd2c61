"""A request and its reply, as REST resources see them; HTTP itself is `ops`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class RestRequest:
    """
    What was asked.

    `arguments` are the named parts of the resource's path, `query` the first
    value of each query parameter ("" for a bare one), `local` whether the asker
    came over a UNIX socket, whose file permissions vouch for it.
    """

    method: str
    path: str
    arguments: Mapping[str, str] = attrs.field(factory=dict)
    query: Mapping[str, str] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    local: bool = False


@attrs.frozen
class RestReply:
    """
    What to answer: `body` is bytes or text as they are, else encoded as JSON.

    Header names are lower case.
    """

    body: Any = None
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = attrs.field(factory=dict)


def refuse(status: int, what: str, why: str, remedy: str) -> RestReply:
    """An error for people and programs: what failed, why, and what to do."""
    return RestReply({"error": what, "reason": why, "remedy": remedy}, status)
