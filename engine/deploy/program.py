"""What runs a user's program, as an update sees it.

Not the ways of running one: those are `source.py` and `local_program.py`. Source: pulumi `deploy/source.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from engine.deploy.update_target import UpdateTarget


class ProgramBailed(Exception):
    """The program failed and has told the engine why: there is nothing to add."""


OutputListener = Callable[[str, str, int], None]
"""Takes what a program prints: severity, one line with its end, and the number of the stream it came from."""


class ProgramSource(Protocol):
    """Something that runs the user's program against a monitor: the SDK's language host behind `--client`."""

    async def run(self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool,
                  parallel: int) -> str:  # fmt: skip
        """Run the program to its end; returns its error ("" = it succeeded).

        Raises:
            ProgramBailed: it failed and has told the engine why.
        """
        ...

    async def cancel(self) -> None:
        """Ask it to stop."""
        ...


@runtime_checkable
class PrintingProgram(Protocol):
    """A ProgramSource whose program's output is not this process's own."""

    def listen(self, on_output: OutputListener) -> None: ...
