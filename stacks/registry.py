"""Program name → function; the stack's configuration (`stackyard:program`) picks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pulumi

from stacks.programs.dedicated import dedicated
from stacks.programs.handler import handler
from stacks.programs.pod import pod

PROGRAMS: Mapping[str, Callable[[pulumi.Config], None]] = {"dedicated": dedicated, "handler": handler, "pod": pod}


def run_program() -> None:
    """The one inline program of every stack, and what `pulumi up` in the checkout runs.

    Raises:
        pulumi.RunError: the configuration names no known program.
    """
    config = pulumi.Config()
    name = config.require("program")
    if name not in PROGRAMS:
        raise pulumi.RunError(f"unknown program {name!r} in stackyard:program; known: {', '.join(PROGRAMS)}")
    PROGRAMS[name](config)
