"""Strings and dotted keys, written as TOML wants them."""

from __future__ import annotations

import json
import re

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def quoted(text: str) -> str:
    """A basic string. JSON's escapes are TOML's, but for DEL, which TOML does not allow bare."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def join(path: str, key: str) -> str:
    """A dotted path with one more key, which is quoted where it must be."""
    name = key if _BARE.fullmatch(key) else quoted(key)
    return f"{path}.{name}" if path else name
