"""A person at a terminal: the screen that displays draw on and the questions that are asked there.

Made by the composition root; without one a command is not interactive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console as Screen


@dataclass(frozen=True)
class Terminal:
    """Where somebody is watching.

    Attributes:
        stream: standard output.
        ask: prints a question and returns the line that was typed; raises EOFError where there is nobody.
        ask_secret: the same without showing what is typed.
    """

    stream: TextIO
    ask: Callable[[str], str]
    ask_secret: Callable[[str], str]

    def screen(self, color: str) -> Screen:
        """What to draw on; `color` is the flag's value (always, never, raw, auto)."""
        return Screen(file=self.stream, highlight=False, no_color=color in ("never", "raw") or None)
