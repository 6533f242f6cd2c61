"""
The text of one file of services.d: its services, or all that is wrong with it.

A file is taken whole or not at all, so that a mistake in one service does not
look like the removal of another.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

import attrs

from dcosnet.sources.services import Flaw, Reader, Service, unknown

SUFFIXES = (".toml", ".json")

# A file with hundreds of mistakes is not the file that somebody meant to write.
_FLAWS_SHOWN = 20

_DOCUMENT_KEYS = ("service",)


@attrs.frozen
class Content:
    """What a file says: its services in their order, or its flaws, never both."""

    services: tuple[Service, ...] = ()
    flaws: tuple[Flaw, ...] = ()


def is_service_file(name: str) -> bool:
    """Whether a file of this name is read: not hidden, no editor's backup, TOML or JSON."""
    return name.endswith(SUFFIXES) and not name.startswith((".", "#", "~"))


def parse(name: str, data: bytes, reader: Reader) -> Content:
    """Read the file `name`. Never raises, whatever the bytes are."""
    try:
        document = _document(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Content(flaws=(Flaw("", f"byte {error.start} is not UTF-8 text", "save it as UTF-8"),))
    except RecursionError:
        return Content(flaws=(Flaw("", "is nested too deeply", "write a plain list of services"),))
    except ValueError as error:
        syntax = "TOML" if name.endswith(".toml") else "JSON"
        return Content(flaws=(Flaw("", f"is not {syntax}: {_line(str(error))}", "correct it there"),))
    return _services(document, reader)


def _document(name: str, text: str) -> Any:
    if name.endswith(".toml"):
        return tomllib.loads(text)
    return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that is there twice is an error, as it is in TOML."""
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!a} is there twice")
        table[key] = value
    return table


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON value")


def _line(text: str) -> str:
    return " ".join(ascii(text)[1:-1].split())[:200]


def _services(document: object, reader: Reader) -> Content:
    if not isinstance(document, dict):
        return Content(flaws=(Flaw("", "is not a table", 'write {"service": [...]}'),))
    flaws = [Flaw("", *unknown(str(key), _DOCUMENT_KEYS)) for key in document if key not in _DOCUMENT_KEYS]
    tables = document.get("service", [])
    if not isinstance(tables, list):
        flaws.append(Flaw("", "`service` is not a list", "write [[service]], with two brackets"))
        tables = []
    services: list[Service] = []
    for number, table in enumerate(tables, 1):
        service, wrong = reader.read(table, _place(number, table))
        flaws += wrong
        if service is not None:
            services.append(service)
    if not flaws:
        return Content(tuple(services))
    more = len(flaws) - _FLAWS_SHOWN
    if more > 0:
        flaws = [*flaws[:_FLAWS_SHOWN], Flaw("", f"{more} more mistakes", "correct these first")]
    return Content(flaws=tuple(flaws))


def _place(number: int, table: object) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    if isinstance(name, str) and name and len(name) <= 63 and name.isprintable():
        return f"service {number} ({name})"
    return f"service {number}"
