"""How commands print: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


class Output(StrEnum):
    """Choices of `--output`."""

    TABLE = "table"
    JSON = "json"


PIPE_COLUMNS = 240
"""Into a pipe nothing is folded: an id cut in two is of no use to `grep`."""

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="for people or for programs")]


def print_json(value: Any) -> None:
    """One JSON value, nothing else, on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output: Output, *, empty: str) -> None:
    """A list; `empty` is what people read when there is nothing."""
    found = list(rows)
    if output is Output.JSON:
        print_json(found)
    elif not found:
        Console(stderr=True).print(empty, style="dim")
    else:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in found:
            table.add_row(*("" if row.get(c) is None else str(row[c]) for c in columns))
        console = Console()
        (console if console.is_terminal else Console(width=PIPE_COLUMNS)).print(table)
