"""What a command says: lines on two streams, kept for the result and handed on as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Console:
    """Collects output as the SDK's own runner does: line by line, trailing blanks off."""

    def __init__(
        self, on_output: Callable[[str], Any] | None = None, on_error: Callable[[str], Any] | None = None
    ) -> None:
        self._on_output = on_output
        self._on_error = on_error
        self._out: list[str] = []
        self._error: list[str] = []

    def out(self, text: str = "") -> None:
        """Print one or more lines."""
        _say(text, self._out, self._on_output)

    def error(self, text: str) -> None:
        """Print lines on the error stream."""
        _say(text, self._error, self._on_error)

    @property
    def stdout(self) -> str:
        return "\n".join(self._out)

    @property
    def stderr(self) -> str:
        return "\n".join(self._error)


def _say(text: str, lines: list[str], listener: Callable[[str], Any] | None) -> None:
    for line in text.split("\n"):
        stripped = line.rstrip()
        lines.append(stripped)
        if listener:
            listener(stripped)
