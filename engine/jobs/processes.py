"""The name of a process that dispatches, from which others on its machine can tell that it is gone."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "gateway"


def process_name() -> str:
    """`gateway:<machine and its start>:<process namespace>:<pid>:<when it began>`; another one for every start."""
    return ":".join((PREFIX, *_here(), str(os.getpid()), _began(os.getpid()) or "0"))


def is_surely_gone(name: str) -> bool:
    """Whether the process was one of this very machine and does not run any more; False: nobody here can tell."""
    parts = name.split(":")
    here = _here()
    if len(parts) != 5 or parts[0] != PREFIX or (parts[1], parts[2]) != here or not all(here) or not parts[3].isdigit():
        return False
    return _began(int(parts[3])) != parts[4]


def _here() -> tuple[str, str]:
    """This start of this machine, and where process ids are counted; both empty where /proc does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink("/proc/self/ns/pid").replace(":", "")
    except OSError:
        return "", ""


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None: there is none, or it only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
