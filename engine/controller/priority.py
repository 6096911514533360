"""A worker's place behind the processes that carry streams: it takes the processor time that they leave."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""About a tenth of a processor that others want too: a stack update takes longer then, a token does not."""

_AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Let other processes of this machine run first, from now on; threads that are started later do the same.

    Where Linux shares processors between sessions (sched(7), autogroup), niceness counts within a session only: one
    that is this process's own is lowered as a whole.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # another system, or switched off
            _AUTOGROUP.write_text(str(NICENESS))
