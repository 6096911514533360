"""A configuration file that changes together with its stack's checkpoint: both, or neither.

The new text waits beside the file until the checkpoint of the same salt is stored; it decides nothing itself.
"""

from __future__ import annotations

from pathlib import Path

from engine.deploy.backend.file import replace_file
from engine.deploy.stack_config import StackConfig


class ConfigChange:
    """The change that waits beside one `Pulumi.<stack>.yaml`, if there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(f".{path.stem}.next{path.suffix}")

    @property
    def is_pending(self) -> bool:
        """Whether a change was prepared and neither finished nor replaced."""
        return self._next.is_file()

    def prepare(self, text: str) -> None:
        """Put the new text beside the file, durably."""
        replace_file(self._next, text.encode())

    def finish(self, salt: str) -> None:
        """Put the new text into place if it is of the stored checkpoint's salt: then the change was decided.

        Text of another salt belongs to a change that is still going on, or that died undecided and counts for nothing.
        """
        try:
            if StackConfig.load(self._next).salt == salt:
                self._next.replace(self._path)
        except FileNotFoundError:
            pass  # somebody else put it into place
