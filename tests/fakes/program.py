"""A program without the SDK: registers declared resources with the monitor, in order, over gRPC.

For tests that run thousands of updates; it registers one resource after the other, so schedules are reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from pulumi.runtime.proto import resource_pb2, resource_pb2_grpc

from engine.deploy.property import PropertyMap
from engine.deploy.update_target import UpdateTarget
from engine.deploy.wire import decode_struct, encode_struct


@dataclass(frozen=True)
class Declared:
    """A resource of type `fake:index:Thing`; `uses` maps a property to the resource whose address it takes."""

    name: str
    properties: PropertyMap = field(default_factory=dict)
    uses: dict[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()


class StubProgram:
    """A ProgramSource over a list of declarations."""

    def __init__(self, resources: Sequence[Declared]) -> None:
        self._resources = resources

    async def run(
        self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool, parallel: int
    ) -> str:
        async with grpc.aio.insecure_channel(monitor_address) as channel:
            monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
            try:
                await self._register_all(monitor, f"{target.project}-{target.stack}")
            except grpc.aio.AioRpcError as err:
                return str(err.details())
        return ""

    async def _register_all(self, monitor: Any, stack_name: str) -> None:
        stack = await monitor.RegisterResource(
            resource_pb2.RegisterResourceRequest(type="pulumi:pulumi:Stack", name=stack_name, acceptSecrets=True)
        )
        urns: dict[str, str] = {}
        outputs: dict[str, PropertyMap] = {}
        for declared in self._resources:
            taken = {key: outputs[name].get("address") for key, name in declared.uses.items()}
            dependencies = {key: [urns[name]] for key, name in declared.uses.items()}
            request = resource_pb2.RegisterResourceRequest(
                type="fake:index:Thing",
                name=declared.name,
                custom=True,
                parent=stack.urn,
                version="1.2.3",
                object=encode_struct({**declared.properties, **taken}),
                dependencies=[*(urns[n] for n in declared.after), *(urns[n] for n in declared.uses.values())],
                propertyDependencies={
                    key: resource_pb2.RegisterResourceRequest.PropertyDependencies(urns=u)
                    for key, u in dependencies.items()
                },
                acceptSecrets=True,
                acceptResources=True,
            )
            made = await monitor.RegisterResource(request)
            urns[declared.name] = made.urn
            outputs[declared.name] = decode_struct(made.object)
        await monitor.RegisterResourceOutputs(
            resource_pb2.RegisterResourceOutputsRequest(
                urn=stack.urn, outputs=encode_struct({name: o.get("address") for name, o in outputs.items()})
            )
        )

    async def cancel(self) -> None:
        return None
