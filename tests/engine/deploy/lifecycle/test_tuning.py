"""What is spared a program changes nothing that it can tell."""

from __future__ import annotations

import asyncio
import gc
import json

import pulumi
import pulumi.runtime.stack
import pytest

from engine.deploy.command import EngineLoop
from engine.deploy.launchers import tuning
from tests.fakes.folder import Folder


def test_process_that_runs_updates_is_tuned_once() -> None:
    loop = EngineLoop()
    try:
        loop.run(asyncio.sleep(0))
        patched = pulumi.runtime.stack.asyncio
        tuning.apply()
        assert pulumi.runtime.stack.asyncio is patched and patched is not asyncio
        assert pulumi.log.debug("nobody listens") is None
        assert gc.get_threshold()[0] >= 10_000 and gc.isenabled()
    finally:
        loop.close()


async def test_waiting_for_the_first_ends_with_the_last_or_the_first_failure() -> None:
    waits = tuning._Asyncio()
    forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    quick = asyncio.ensure_future(asyncio.sleep(0))
    failing = asyncio.ensure_future(_fail())
    done, pending = await waits.wait([forever, quick, failing], return_when=asyncio.FIRST_COMPLETED)
    assert failing in done and pending == {forever}
    forever.cancel()
    with pytest.raises(RuntimeError, match="bad weights"):
        await failing
    several = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(3)]
    done, pending = await waits.wait(several, return_when=asyncio.FIRST_COMPLETED)
    assert done == set(several) and not pending
    assert waits.gather is asyncio.gather


async def _fail() -> None:
    raise RuntimeError("bad weights")


PROGRAM = """
import asyncio, gc
import pulumi
import pulumi.runtime.stack
pulumi.export("debug", pulumi.log.debug.__name__)
pulumi.export("waits", pulumi.runtime.stack.asyncio is not asyncio)
pulumi.export("young", gc.get_threshold()[0])
"""


def test_local_program_is_tuned_too(folder: Folder) -> None:
    folder.write(PROGRAM)
    folder.run("stack", "init", "dev")
    folder.up()
    assert json.loads(folder.outputs()) == {"debug": "_drop", "waits": True, "young": 10_000}
