"""The floor: what the unmodified SDK itself needs to run a program, against a monitor that answers without thinking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, language_pb2_grpc, resource_pb2, resource_pb2_grpc

from engine.deploy.source import LanguageRuntimeSource
from engine.deploy.update_target import UpdateTarget
from engine.model.clock import Clock, SystemClock
from engine.proof.instant import things

_FEATURES = frozenset({"secrets", "resourceReferences", "outputValues", "aliasSpecs", "deletedWith"})
"""Those the engine grants too: each changes what the SDK does."""


class _Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    async def SupportsFeature(self, request: Any, context: Any) -> Any:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in _FEATURES)

    async def RegisterResource(self, request: Any, context: Any) -> Any:
        outputs = struct_pb2.Struct()
        outputs.CopyFrom(request.object)
        outputs.update({"address": f"at {request.name}"})
        urn = f"urn:pulumi:floor::floor::{request.type}::{request.name}"
        return resource_pb2.RegisterResourceResponse(urn=urn, id=request.name, object=outputs)

    async def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


class _Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self) -> None:
        self._root = ""

    async def GetRootResource(self, request: Any, context: Any) -> Any:
        return engine_pb2.GetRootResourceResponse(urn=self._root)

    async def SetRootResource(self, request: Any, context: Any) -> Any:
        self._root = request.urn
        return engine_pb2.SetRootResourceResponse()

    async def Log(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


async def _run(address: str, folder: Path) -> str:
    server = grpc.aio.server()
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(_Monitor(), server)
    engine_pb2_grpc.add_EngineServicer_to_server(_Engine(), server)
    own = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    target = UpdateTarget(project="floor", stack="floor")
    try:
        source = LanguageRuntimeSource(address, folder)
        return await source.run(monitor_address=own, engine_address=own, target=target, dry_run=False, parallel=16)
    finally:
        await server.stop(grace=1.0)


def floor_seconds(counts: Sequence[int], folder: Path) -> list[float]:
    """Seconds from Run to the program's end for programs of so many resources each, one after the other.

    In a process of its own: this one has tuned its SDK (`engine.deploy.launchers.tuning`), the floor is what it needs
    as it is installed.

    Raises:
        RuntimeError: a program failed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(_measure, tuple(counts), folder).result()


def _measure(counts: Sequence[int], folder: Path) -> list[float]:
    """In the child: the first, small program is not counted; it warms imports and caches."""
    return [_seconds(things(count), folder, SystemClock()) for count in (3, *counts)][1:]


def _seconds(program: Callable[[], None], folder: Path, clock: Clock) -> float:
    with ThreadPoolExecutor(4) as pool:  # as many threads as the Automation API gives it
        server = grpc.server(pool)
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            start = clock.monotonic()
            if error := asyncio.run(_run(address, folder)):
                raise RuntimeError(error)
            return clock.monotonic() - start
        finally:
            server.stop(1.0).wait()
