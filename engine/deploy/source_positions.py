"""Where in the program a resource was asked for, as the checkpoint keeps it: `project:///__main__.py#7`.

Reads no source. Source: pulumi `source_eval.go`, sourcePositions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_GO_SAFE = "/:@&=+$,;"  # what Go's URLs leave unescaped in a path


class SourcePositions:
    """Positions relative to a project's folder; the same program line is worked out once."""

    def __init__(self, root: Path) -> None:
        self._root = str(root) if root.is_absolute() else "/"
        self._known: dict[tuple[str, int, int], str] = {}
        self._traces: dict[bytes, list[dict[str, str]]] = {}

    def of(self, request: Any) -> Mapping[str, Any]:
        """The members `sourcePosition` and `stackTrace` of the state a request leads to, those that are known."""
        found: dict[str, Any] = {}
        if position := self._position(request.sourcePosition):
            found["sourcePosition"] = position
        if request.stackTrace.frames:
            found["stackTrace"] = self._trace(request.stackTrace)
        return found

    def _trace(self, trace: Any) -> list[dict[str, str]]:
        key = trace.SerializeToString(deterministic=True)
        if key not in self._traces:
            positions = [self._position(frame.pc) for frame in trace.frames]
            self._traces[key] = [{"sourcePosition": p} if p else {} for p in positions]
        return self._traces[key]

    def _position(self, raw: Any) -> str:
        if not raw.uri:
            return ""
        key = (raw.uri, raw.line, raw.column)
        if key not in self._known:
            self._known[key] = self._relative(*key)
        return self._known[key]

    def _relative(self, uri: str, line: int, column: int) -> str:
        url = urlsplit(uri)
        path = unquote(url.path)
        if url.scheme != "file" or not path.startswith("/") or line < 0 or column < 0:
            return ""
        relative = quote(os.path.relpath(path, self._root), safe=_GO_SAFE)
        return f"project:///{relative}#{line}{f',{column}' if column else ''}"
