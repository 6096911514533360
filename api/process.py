"""What every process that the supervisor starts does first: find out its name and parent, and die with that parent."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from api import logs
from api.settings import Settings, load

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Child:
    """How a supervised process was started.

    Attributes:
        parent_pid: the supervisor; 0 when started by hand.
        fd: an inherited listening socket; -1 where there is none.
        executor_id: name of a worker in the lease table.
        replaces: name of the worker that ran before it here, and is dead.
    """

    settings: Settings
    parent_pid: int
    fd: int
    executor_id: str
    replaces: str


def begin(name: str) -> Child:
    """Read arguments and settings, tie this process to its parent, set up its log."""
    parser = argparse.ArgumentParser(prog=f"stackyard {name}")
    parser.add_argument("--parent-pid", type=int, default=0)
    parser.add_argument("--fd", type=int, default=-1)
    parser.add_argument("--executor-id", default="")
    parser.add_argument("--replaces", default="")
    parser.add_argument("--gate", type=int, default=-1, help="a pipe that is closed when the database is ready")
    given = parser.parse_args()
    if given.parent_pid:
        die_with(given.parent_pid)
    settings = load()
    logs.configure(settings.data_dir, name, settings.log_level)
    if given.gate >= 0:
        os.read(given.gate, 1)
        os.close(given.gate)
    return Child(settings, given.parent_pid, given.fd, given.executor_id, given.replaces)


def die_with(parent_pid: int) -> None:
    """Be sent SIGTERM when the parent ends, however it ends; end now if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        sys.exit(f"the supervisor (pid {parent_pid}) is gone")
