"""Tables as the official command prints them: columns as wide as what is in them, two spaces apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

_GAP = "  "


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> Iterator[str]:
    """The lines of a table; every row has as many cells as its head, and as many lines as its longest cell."""
    cells = [[text.split("\n") for text in row] for row in [head, *rows]]
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(head))]
    for row in cells:
        for parts in zip_longest(*row, fillvalue=""):
            yield (indent + _GAP.join(f"{text:<{width}}" for text, width in zip(parts, widths, strict=True))).rstrip()


def ago(seconds: int) -> str:
    """How long ago, in the largest unit that fits: people read it."""
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if count := seconds // size:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now" if seconds < 2 else f"{seconds} seconds ago"
