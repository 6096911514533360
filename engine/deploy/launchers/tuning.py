"""What a process that runs Pulumi programs for this engine does to the SDK's costs, and nothing to its meaning.

Imports nothing of this project: the launcher loads it into interpreters that need not have it. An SDK that has none of
these places is left as it is. Measured from ten to five thousand resources: see `benchmarks/README.md`.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pulumi.log
import pulumi.runtime.stack

_YOUNG, _MIDDLE, _OLD = 10_000, 10, 5
"""Allocations before a collection, and collections before an older generation is looked at. Python's 700 look at
everything a program has registered so far some hundreds of times a second."""


class _Asyncio:
    """`asyncio` for the module that waits for a program's outputs.

    It waits for *one* of all outstanding outputs, then for one of the rest, and so on: each time every one of them gets
    a callback and loses it again, which is quadratic. Waiting until all are done or one failed finds the same failures.
    """

    FIRST_COMPLETED = asyncio.FIRST_COMPLETED

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def wait(fs: Any, *, timeout: float | None = None, return_when: str = asyncio.ALL_COMPLETED) -> Any:
        """`asyncio.wait`, whose FIRST_COMPLETED means FIRST_EXCEPTION."""
        if return_when == asyncio.FIRST_COMPLETED:
            return_when = asyncio.FIRST_EXCEPTION
        return await asyncio.wait(fs, timeout=timeout, return_when=return_when)


def _drop(msg: str, resource: Any = None, stream_id: int | None = None, ephemeral: bool | None = None) -> None:
    """`pulumi.log.debug` where nobody listens: the engine drops these lines, and each would be a round trip to it."""


def apply() -> None:
    """Do it, once per process; a second time changes nothing."""
    if pulumi.log.debug is _drop:
        return
    pulumi.log.debug = _drop
    if getattr(pulumi.runtime.stack, "asyncio", None) is asyncio:
        pulumi.runtime.stack.asyncio = _Asyncio()  # type: ignore[assignment, attr-defined]
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
