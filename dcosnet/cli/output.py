"""
What verbs print: a table for people, JSON for programs.

On a terminal rich draws the table; elsewhere columns are aligned and nothing is
cut, so that `grep` and `awk` see all of it. Names come from the network: what
a terminal could take for a command is shown as "?".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click


def printable(text: str) -> str:
    """The text on one line, without anything that steers a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_json(document: Any) -> None:
    """A document as JSON that people can read, too."""
    # Everything beyond ASCII is escaped: safe on any terminal, equal for any parser.
    click.echo(json.dumps(document, indent=2))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None) -> None:
    """
    Rows under headings; a list in a cell is joined with spaces, None is a dash.

    With a width each row is one line, and what would go beyond is cut off.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    # Python has no stdout at all where the caller closed it.
    if width is None and sys.stdout is not None and sys.stdout.isatty():
        _draw(headings, cells)
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for row in (headings, *cells):
        click.echo("  ".join(map(str.ljust, row, widths))[:width].rstrip())


def _cell(value: object) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(" ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _draw(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in cells:
        # Text is not markup: a task named "[red]" is shown as that.
        table.add_row(*map(Text, row))
    Console().print(table)
