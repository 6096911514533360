"""Becomes another program that dies with the process that started it: `tied.py PROGRAM ARGUMENT…`.

A provider plugin left behind by a killed engine would hold memory and connections for ever. Only Linux can promise it;
elsewhere the program starts as it is.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; it survives exec


def main(program: str, arguments: list[str]) -> None:
    """Replace this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
