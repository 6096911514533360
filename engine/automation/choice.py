"""Which `pulumi` a process works with: the embedded engine or the official binary."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from pulumi.automation import PulumiCommand
from pulumi.automation.errors import InvalidVersionError

from engine.model.errors import StackError
from engine.model.fence import Fence

CommandFor = Callable[[Fence], PulumiCommand | None]
"""The command that works under a fence; None lets the SDK look for the binary."""


class PulumiMode(StrEnum):
    """The setting `pulumi` (STACKYARD_PULUMI)."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    CLI = "cli"


def choose_command(mode: str, *, embedded: CommandFor, environment: Mapping[str, str]) -> CommandFor:
    """The command to work with: the binary when asked for, or found on PATH and not refused; else the embedded engine.

    Args:
        mode: `auto`, `embedded` or `cli`.
        embedded: makes an `EmbeddedPulumi` for a fence.
        environment: the process's environment; its PATH is searched.

    Raises:
        StackError: `cli` was asked for and there is none, or it is too old; or `mode` is none of the three.
    """
    if mode not in PulumiMode.__members__.values():
        raise StackError(f"pulumi = {mode!r} is not a choice: use auto, embedded or cli")
    binary = shutil.which("pulumi", path=environment.get("PATH", ""))
    if mode == PulumiMode.EMBEDDED or (mode == PulumiMode.AUTO and binary is None):
        return embedded
    if binary is None:
        raise StackError(
            "pulumi = cli, but there is no `pulumi` on PATH: install it (https://www.pulumi.com/docs/install/) or set "
            "STACKYARD_PULUMI=embedded"
        )
    command = _official(Path(binary))
    return lambda fence: command


def _official(binary: Path) -> PulumiCommand:
    """The binary, as the SDK checks it."""
    try:
        command = PulumiCommand()
    except (InvalidVersionError, OSError) as err:
        raise StackError(f"the pulumi found at {binary} cannot be used: {err}") from err
    command.command = str(binary)
    return command
