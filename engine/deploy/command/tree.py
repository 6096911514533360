"""The live tree of an update on a terminal: one row per resource below its parent, redrawn while steps run.

What a row says is `display.py`'s business. Source: pulumi `pkg/backend/display/{tree,progress}.go`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console as Screen
from rich.console import Group
from rich.live import Live
from rich.text import Text

from engine.deploy.command.console import Console
from engine.deploy.command.display import (
    HEADLINE,
    OP_PREFIXES,
    OP_STYLES,
    SEVERITY_STYLES,
    ProgressDisplay,
    Row,
    Showing,
    seconds_text,
)
from engine.deploy.update import UpdateMode
from engine.model.clock import Clock

_REDRAWS_PER_SECOND = 8  # the seconds of running steps count; faster only flickers
_PREFIX_WIDTH, _GAP = 3, 2
_LINES_AROUND = 2  # of the screen: the titles, and the line the cursor is on
_HALVES = frozenset({"create-replacement", "delete-replaced", "read-replacement", "import-replacement"})


class TreeDisplay(ProgressDisplay):
    """Draws the rows as a tree until the update ends, then prints it once for good with the rest below it."""

    def __init__(
        self,
        console: Console,
        clock: Clock,
        mode: UpdateMode,
        project: str,
        stack: str,
        *,
        showing: Showing,
        screen: Screen,
    ) -> None:
        super().__init__(console, clock, mode, project, stack, showing=showing)
        self._screen = screen
        self._guard = threading.RLock()  # events come from the engine's thread, redrawing happens on rich's
        self._live = Live(
            console=screen,
            get_renderable=self._draw,
            refresh_per_second=_REDRAWS_PER_SECOND,
            transient=True,
        )

    def start(self) -> None:
        """Print the heading and begin to draw."""
        self._say(self._header, HEADLINE)
        self._live.start()

    def emit(self, event: Mapping[str, Any]) -> None:
        """Take what an event changes into the tree."""
        with self._guard:
            super().emit(event)

    def close(self) -> None:
        """Stop drawing, also after an update that never came to its end."""
        self._live.stop()

    def interrupted(self, text: str) -> None:
        """Say something above the tree."""
        self._screen.print(Text(text, style="bold red"), soft_wrap=True)

    def _say(self, text: str = "", style: str = "") -> None:
        self._screen.print(Text(text, style=style), soft_wrap=True)

    def _say_parts(self, *parts: tuple[str, str]) -> None:
        self._screen.print(Text.assemble(*parts), soft_wrap=True)

    def _begin(self, prelude: Mapping[str, Any]) -> None:
        self._configuration(prelude)

    def _print(self, row: Row) -> None:
        row.shown = True

    def _print_rest(self, summary: Mapping[str, Any]) -> None:
        self._live.stop()
        self._screen.print(self._table(list(self._lines())))
        self._say()
        super()._print_rest(summary)

    def _prefix(self, row: Row) -> str:
        return OP_PREFIXES[row.op]

    def _status(self, row: Row) -> str:
        if self._is_root(row) and row.op == "delete" and row.finished is not None and not self._planning:
            return f"deleted ({seconds_text(row.finished - row.started)})"
        status = super()._status(row)
        running = row.finished is None and not self._planning and not self._done and not row.failed
        return f"{status}{self._dots()}" if status and running else status

    def _dots(self) -> str:
        return "." * (int(self._clock.monotonic()) % 3 + 1)

    def _elapsed(self, row: Row) -> str:
        return f"{int(self._clock.monotonic() - row.started)}s"

    def _draw(self) -> Group:
        """What is on the screen meanwhile: as many rows as it has lines for."""
        with self._guard:
            return self._table(*self._fitting(list(self._lines()), self._screen.size.height - _LINES_AROUND))

    def _fitting(self, rows: list[tuple[Row, str]], height: int) -> tuple[list[tuple[Row, str]], int]:
        """Those rows that matter now, and how many are left out: what runs or failed, under its parents."""
        if len(rows) <= height:
            return rows, 0
        wanted: set[str] = set()
        for row, _ in rows:
            if row.finished is None or row.failed:
                wanted |= {row.urn, *self._above(row)}
        left = [line for line in rows if line[0].urn in wanted][: max(height - 1, 1)]
        return left, len(rows) - len(left)

    def _above(self, row: Row) -> Iterator[str]:
        urn = self._parent(row)
        while urn:
            yield urn
            urn = self._parent(self._rows[urn])

    def _table(self, rows: Sequence[tuple[Row, str]], left_out: int = 0) -> Group:
        """Rows in columns; a line that is too long is cut at the edge of the screen."""
        last = "Plan" if self._planning else "Status"
        names = ["URN"] if self._showing.urns else ["Type", "Name"]
        table = [[Text(""), *(_title(name) for name in [*names, last, "Info"])]]
        table += [self._cells(row, guides) for row, guides in rows]
        widths = [max(cell.cell_len for cell in column) for column in zip(*table, strict=True)]
        widths[0] = _PREFIX_WIDTH
        lines = [_joined(cells, widths) for cells in table]
        if left_out:
            lines.append(Text(f"     … and {left_out} more", style="dim", no_wrap=True, overflow="crop"))
        return Group(*lines)

    def _cells(self, row: Row, guides: str) -> list[Text]:
        style = "red" if row.failed else OP_STYLES.get(row.op, "")
        return [
            Text(f" {self._prefix(row)}", style=style),
            Text.assemble((guides, "dim"), row.urn if self._showing.urns else row.type),
            *([] if self._showing.urns else [Text(row.name)]),
            Text(self._status(row), style=f"bold {style}" if row.failed else style),
            _styled_info(self._info(row)),
        ]

    def _before(self, metadata: Mapping[str, Any]) -> None:
        if metadata["op"] in _HALVES and self._planning and not self._showing.replacement_steps:
            metadata = {**metadata, "op": "replace"}
        super()._before(metadata)

    def _lines(self) -> Iterator[tuple[Row, str]]:
        """The rows to show, each with the lines that lead to it, in the order of a tree."""
        children: dict[str, list[Row]] = {}
        for row in self._shown():
            parent = self._parent(row)
            children.setdefault(parent, []).append(row)
        yield from _descend(children, "", "", is_root=True)

    def _shown(self) -> list[Row]:
        """Rows of interest and their ancestors, in the order they came."""
        wanted: set[str] = set()
        for row in self._rows.values():
            if row.shown:
                urn = row.urn
                while urn and urn not in wanted:
                    wanted.add(urn)
                    urn = self._parent(self._rows[urn])
        return [row for row in self._rows.values() if row.urn in wanted]

    def _parent(self, row: Row) -> str:
        state = row.metadata.get("new") or row.metadata.get("old") or {}
        parent = str(state.get("parent") or "")
        if parent not in self._rows:
            parent = self._root_urn if self._root_urn in self._rows else ""
        return "" if row.urn == self._root_urn else parent


def _descend(children: Mapping[str, list[Row]], parent: str, lead: str, *, is_root: bool) -> Iterator[tuple[Row, str]]:
    rows = children.get(parent, [])
    for row in rows:
        last = row is rows[-1]
        branch = "" if is_root else ("└─ " if last else "├─ ")
        yield row, lead + branch
        below = lead if is_root else lead + ("   " if last else "│  ")
        yield from _descend(children, row.urn, below, is_root=False)


def _joined(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell)
        line.append(" " * (width + _GAP - cell.cell_len))
    line.rstrip()
    return line


def _title(text: str) -> Text:
    return Text(text, style="underline bright_blue")


def _styled_info(info: str) -> Text:
    text = Text(info)
    for severity, style in SEVERITY_STYLES.items():
        text.highlight_regex(rf"{severity}s?", style)
    return text
