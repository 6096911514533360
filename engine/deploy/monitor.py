"""The `ResourceMonitor` and `Engine` services the SDK talks to: translates requests and answers, decides nothing.

What it does not support is refused by name. Source: pulumi `pkg/resource/deploy/source_eval.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, resource_pb2, resource_pb2_grpc

from engine.deploy.callbacks import CallbackFailed
from engine.deploy.checkpoint import COMPATIBLE_VERSION
from engine.deploy.component_providers import ComponentProviders
from engine.deploy.deployment import Deployment
from engine.deploy.events import EngineEvents
from engine.deploy.goal import AliasSpec, Goal
from engine.deploy.hooks import KINDS, DuplicateHook, Hooks
from engine.deploy.inheritance import Inheritance
from engine.deploy.packages import ENV_VAR_MAPPINGS, INTERNAL, PackageRequest, asked_of, described_by
from engine.deploy.property import UNKNOWN_VALUE, PropertyMap
from engine.deploy.provider import ProviderError
from engine.deploy.registry import SWITCH_TO_CLI
from engine.deploy.source_positions import SourcePositions
from engine.deploy.transforms import Transforms
from engine.deploy.urn import package_of
from engine.deploy.version_range import VersionRangeError, require_version
from engine.deploy.wire import CHANNEL_OPTIONS as CHANNEL_OPTIONS
from engine.deploy.wire import decode_struct, decode_value, encode_struct
from engine.deploy.worker_pool import Refused, UpdateStopped, WorkerPool
from engine.model.ids import random_uuid

# No port reuse: two updates must never share one.
_SERVER_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0))

_GRACE_SECONDS = 0.5  # only for calls still open: a client that has none hangs up at once

_FEATURES = {
    "secrets": resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    "resourceReferences": resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
    "outputValues": resource_pb2.RESOURCE_MONITOR_FEATURE_OUTPUT_VALUES,
    "aliasSpecs": resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    "deletedWith": resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    "replaceWith": resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
    "replacementTrigger": resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACEMENT_TRIGGER,
    "resourceHooks": resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
    "errorHooks": resource_pb2.RESOURCE_MONITOR_FEATURE_ERROR_HOOKS,
    "transforms": resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
    "parameterization": resource_pb2.RESOURCE_MONITOR_FEATURE_PARAMETERIZATION,
    "invokeTransforms": resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_TRANSFORMS,
}
_SEVERITIES = {
    engine_pb2.DEBUG: "debug",
    engine_pb2.INFO: "info",
    engine_pb2.WARNING: "warning",
    engine_pb2.ERROR: "error",
}
# What the SDK reports when the engine has hung up on it; the engine has said why by then.
_HUNG_UP = "Resource monitor has terminated, shutting down"

_T = TypeVar("_T")


class MonitorServer:
    """Both services on one loopback port, for one update."""

    def __init__(
        self,
        deployment: Deployment,
        workers: WorkerPool,
        events: EngineEvents,
        transforms: Transforms,
        hooks: Hooks,
    ) -> None:
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)
        self.all_registered = asyncio.Event()
        self._may_end = asyncio.Event()
        monitor = _Monitor(deployment, transforms, hooks, self.all_registered, self._may_end)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, self._server)
        engine_pb2_grpc.add_EngineServicer_to_server(_Engine(workers, events), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        """Hang up; calls still open are cancelled."""
        await self._server.stop(grace=_GRACE_SECONDS)

    def let_program_end(self) -> None:
        """Let the program go, which waits when it has registered everything."""
        self._may_end.set()


class _Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    def __init__(
        self,
        deployment: Deployment,
        transforms: Transforms,
        hooks: Hooks,
        all_registered: asyncio.Event,
        may_end: asyncio.Event,
    ) -> None:
        self._deployment = deployment
        self._transforms = transforms
        self._hooks = hooks
        self._component_providers = ComponentProviders()
        self._positions = SourcePositions(deployment.root)
        self._inheritance = Inheritance()
        self._all_registered = all_registered
        self._may_end = may_end

    async def GetDeploymentInfo(self, request: Any, context: Any) -> resource_pb2.DeploymentInfo:
        return resource_pb2.DeploymentInfo(supportedFeatures=list(_FEATURES.values()))

    async def SupportsFeature(self, request: Any, context: Any) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in _FEATURES)

    async def RegisterResource(self, request: Any, context: Any) -> resource_pb2.RegisterResourceResponse:
        asked = self._component_providers.resolved(self._inheritance.resolved(self._transforms.claimed(request)))
        request = await _answer(context, self._transforms.resource(asked))
        if request.envVarMappings and not _is_provider(request):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "envVarMappings can only be used with provider resources"
            )
        if refused := _refused_options(request):
            await _refuse(context, f"resource {request.name} ({request.type}) uses {refused}")
        plugin = await self._plugin(request, package_of(request.type), context)
        if request.remote:
            return await self._construct(asked, request, plugin, context)
        goal = replace(_goal(request, plugin), origin=self._positions.of(request))
        made = await _answer(context, self._deployment.register(goal))
        self._transforms.remember(made.urn, asked)
        self._component_providers.remember(made.urn, request)
        self._inheritance.remember(made.urn, request)
        result = resource_pb2.Result.SUCCESS if made.succeeded else resource_pb2.Result.FAIL
        if not made.succeeded and not request.supportsResultReporting:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "resource monitor shut down")
        return resource_pb2.RegisterResourceResponse(
            urn=made.urn,
            id="" if made.id == UNKNOWN_VALUE and not _is_provider(request) else made.id,
            object=encode_struct(
                made.outputs, keep_secrets=request.acceptSecrets, keep_resources=request.acceptResources
            ),
            result=result,
            unknown=made.unknown,
        )

    async def _plugin(self, request: Any, package: str, context: Any) -> PackageRequest:
        """The package behind a request: the registered one it refers to, or the one it describes itself."""
        if not request.packageRef:
            return asked_of(package, request)
        found = self._deployment.packages.find(request.packageRef)
        if found is None:
            await context.abort(grpc.StatusCode.UNKNOWN, f"unknown provider package '{request.packageRef}'")
            raise AssertionError("abort returned")
        return found

    async def _construct(
        self, asked: Any, request: Any, plugin: PackageRequest, context: Any
    ) -> resource_pb2.RegisterResourceResponse:
        self._transforms.promise(asked)
        made = await _answer(context, self._deployment.components.construct(request, plugin))
        if made is None:
            goal = Goal(request.type, request.name, custom=False, parent=request.parent)
            return resource_pb2.RegisterResourceResponse(
                urn=(await _answer(context, self._deployment.register(goal))).urn
            )
        self._transforms.remember(made.urn, asked)
        self._component_providers.remember(made.urn, request)
        state = encode_struct(
            decode_struct(made.state), keep_secrets=request.acceptSecrets, keep_resources=request.acceptResources
        )
        needed = resource_pb2.RegisterResourceResponse.PropertyDependencies
        return resource_pb2.RegisterResourceResponse(
            urn=made.urn,
            object=state,
            propertyDependencies={key: needed(urns=urns) for key, urns in made.dependencies.items()},
        )

    async def RegisterResourceOutputs(self, request: Any, context: Any) -> empty_pb2.Empty:
        outputs = decode_struct(request.outputs)
        await _answer(context, self._deployment.register_outputs(request.urn, outputs))
        return empty_pb2.Empty()

    async def ReadResource(self, request: Any, context: Any) -> resource_pb2.ReadResourceResponse:
        plugin = await self._plugin(request, package_of(request.type), context)
        goal = replace(_read_goal(request, plugin), origin=self._positions.of(request))
        made = await _answer(context, self._deployment.read(goal, request.id))
        result = resource_pb2.Result.SUCCESS if made.succeeded else resource_pb2.Result.FAIL
        properties = encode_struct(
            made.outputs, keep_secrets=request.acceptSecrets, keep_resources=request.acceptResources
        )
        id = "" if made.id == UNKNOWN_VALUE else made.id
        return resource_pb2.ReadResourceResponse(urn=made.urn, id=id, properties=properties, result=result)

    async def Invoke(self, request: Any, context: Any) -> Any:
        args = decode_struct(request.args)
        if request.tok == "pulumi:pulumi:getResource":
            return await self._get_resource(str(args.get("urn", "")), request, context)
        request = await _answer(context, self._transforms.invoke(request))
        args = decode_struct(request.args)
        plugin = await self._plugin(request, package_of(request.tok), context)
        call = self._deployment.functions.invoke(request.tok, args, request.provider, plugin)
        value = await _answer(context, call)
        struct = encode_struct(value, keep_resources=request.acceptResources)
        return resource_pb2.ResourceInvokeResponse(**{"return": struct})

    async def _get_resource(self, urn: str, request: Any, context: Any) -> Any:
        state = self._deployment.registrations.state_of(urn)
        if state is None:
            await context.abort(grpc.StatusCode.UNKNOWN, f"unknown resource {urn}")
            raise AssertionError("abort returned")
        found = {"urn": urn, "id": state.id, "state": state.outputs}
        struct = encode_struct(found, keep_resources=request.acceptResources)
        return resource_pb2.ResourceInvokeResponse(**{"return": struct})

    async def ExistsResource(self, request: Any, context: Any) -> resource_pb2.ExistsResourceResponse:
        plugin = await self._plugin(request, package_of(request.type), context)
        id, properties = request.id, decode_struct(request.properties)
        if not id or id == UNKNOWN_VALUE:
            return resource_pb2.ExistsResourceResponse(unknown=True)
        asking = self._deployment.functions.exists(
            request.type, id, request.parent, properties, request.provider, plugin
        )
        return resource_pb2.ExistsResourceResponse(exists=await _answer(context, asking))

    async def Call(self, request: Any, context: Any) -> provider_pb2.CallResponse:
        plugin = await self._plugin(request, package_of(request.tok), context)
        dependencies = {key: tuple(d.urns) for key, d in request.argDependencies.items()}
        args = decode_struct(request.args)
        call = self._deployment.functions.call(request.tok, args, dependencies, request.provider, plugin)
        result = await _answer(context, call)
        response = provider_pb2.CallResponse(
            failures=[provider_pb2.CheckFailure(property=f.property, reason=f.reason) for f in result.failures],
            returnDependencies={
                key: provider_pb2.CallResponse.ReturnDependencies(urns=urns)
                for key, urns in result.dependencies.items()
            },
        )
        getattr(response, "return").CopyFrom(encode_struct(result.outputs))
        return response

    async def RegisterStackTransform(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._transforms.add_for_stack(request)
        return empty_pb2.Empty()

    async def RegisterStackInvokeTransform(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._transforms.add_for_invokes(request)
        return empty_pb2.Empty()

    async def RegisterResourceHook(self, request: Any, context: Any) -> empty_pb2.Empty:
        try:
            self._hooks.register(request)
        except DuplicateHook as err:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, str(err))
        return empty_pb2.Empty()

    async def RegisterErrorHook(self, request: Any, context: Any) -> empty_pb2.Empty:
        try:
            self._hooks.register_for_errors(request)
        except DuplicateHook as err:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, str(err))
        return empty_pb2.Empty()

    async def RegisterPackage(self, request: Any, context: Any) -> resource_pb2.RegisterPackageResponse:
        if request.HasField("extension"):
            await _refuse(context, f"package {request.extension.name}, which extends {request.name} (`extension`)")
        package = described_by(request)
        if complaint := package.complaint():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, complaint)
        return resource_pb2.RegisterPackageResponse(ref=self._deployment.packages.register(package, random_uuid()))

    async def SignalAndWaitForShutdown(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._all_registered.set()
        await self._may_end.wait()
        return empty_pb2.Empty()


class _Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self, workers: WorkerPool, events: EngineEvents) -> None:
        self._workers = workers
        self._events = events
        self._root = ""

    async def Log(self, request: Any, context: Any) -> empty_pb2.Empty:
        severity = _SEVERITIES.get(request.severity, "info")
        hung_up = self._workers.stopped and _HUNG_UP in request.message
        if severity != "debug" and not hung_up:
            self._events.diagnostic(
                severity, request.message, urn=request.urn, stream_id=request.streamId, ephemeral=request.ephemeral
            )
        return empty_pb2.Empty()

    async def GetRootResource(self, request: Any, context: Any) -> engine_pb2.GetRootResourceResponse:
        return engine_pb2.GetRootResourceResponse(urn=self._root)

    async def SetRootResource(self, request: Any, context: Any) -> engine_pb2.SetRootResourceResponse:
        self._root = request.urn
        return engine_pb2.SetRootResourceResponse()

    async def StartDebugging(self, request: Any, context: Any) -> NoReturn:
        await _refuse(context, "attaching a debugger")

    async def RequirePulumiVersion(self, request: Any, context: Any) -> Any:
        try:
            require_version(request.pulumi_version_range, COMPATIBLE_VERSION)
        except VersionRangeError as err:
            await context.abort(grpc.StatusCode.UNKNOWN, str(err))
        return engine_pb2.RequirePulumiVersionResponse()


async def _answer(context: Any, work: Awaitable[_T]) -> _T:
    try:
        return await work
    except UpdateStopped as err:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(err))
    except (Refused, ProviderError, CallbackFailed) as err:
        await context.abort(grpc.StatusCode.UNKNOWN, str(err))
    raise AssertionError("abort returned")


async def _refuse(context: Any, what: str) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{what}: not supported by the embedded engine; {SWITCH_TO_CLI}")
    raise AssertionError("abort returned")


def _is_provider(request: Any) -> bool:
    return bool(request.type.startswith("pulumi:providers:"))


def _refused_options(request: Any) -> str:
    """The first option of a registration this engine does not implement; "" if there is none."""
    options = {
        "state_migrations": "`state_migrations`",
    }
    for field, name in options.items():
        if getattr(request, field):
            return name
    return ""


def _goal(request: Any, plugin: PackageRequest) -> Goal:
    return Goal(
        type=request.type,
        name=request.name,
        custom=request.custom,
        properties=_properties(request, plugin),
        parent=request.parent,
        provider=request.provider if request.custom else "",  # a component has none, whatever its SDK sends
        plugin=plugin,
        dependencies=sorted(request.dependencies),
        property_dependencies={k: sorted(v.urns) for k, v in request.propertyDependencies.items()},
        protect=request.protect,
        delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
        ignore_changes=tuple(request.ignoreChanges),
        hide_diffs=tuple(request.hideDiffs),
        replace_on_changes=tuple(request.replaceOnChanges),
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
        aliases=tuple(_alias(a) for a in request.aliases) + tuple(AliasSpec(urn=u) for u in request.aliasURNs),
        custom_timeouts=_timeouts(request),
        retain_on_delete=request.retainOnDelete,
        deleted_with=request.deletedWith,
        import_id=request.importId,
        replace_with=tuple(request.replace_with),
        replacement_trigger=decode_value(request.replacement_trigger),
        hooks=_hooks(request.hooks),
    )


def _hooks(binding: Any) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(getattr(binding, field)) for field, kind in KINDS.items() if getattr(binding, field)}


def _properties(request: Any, plugin: PackageRequest) -> PropertyMap:
    """The inputs as the program gave them; those of a provider say its plugin as well."""
    given = decode_struct(request.object)
    if not _is_provider(request):
        return given
    own = plugin.inputs()
    if request.envVarMappings:
        own[INTERNAL] = {**own.get(INTERNAL, {}), ENV_VAR_MAPPINGS: dict(sorted(request.envVarMappings.items()))}
    return {**given, **own}


def _read_goal(request: Any, plugin: PackageRequest) -> Goal:
    return Goal(
        type=request.type,
        name=request.name,
        custom=True,
        properties=decode_struct(request.properties),
        parent=request.parent,
        provider=request.provider,
        plugin=plugin,
        dependencies=sorted(request.dependencies),
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
    )


def _alias(alias: Any) -> AliasSpec:
    if alias.WhichOneof("alias") == "urn":
        return AliasSpec(urn=alias.urn)
    spec = alias.spec
    return AliasSpec("", spec.name, spec.type, spec.stack, spec.project, spec.parentUrn, spec.noParent)


_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _timeouts(request: Any) -> dict[str, float]:
    texts = {op: getattr(request.customTimeouts, op, "") for op in ("create", "update", "delete", "read")}
    return {op: duration_seconds(text) for op, text in texts.items() if text}


def duration_seconds(text: str) -> float:
    """Seconds of a Go duration (`1h30m`, `90s`); a bare number is seconds.

    Raises:
        ValueError: not a duration.
    """
    total, number, unit = 0.0, "", ""
    for char in f"{text.strip()}\0":
        if (char.isdigit() or char in ".\0") and unit:
            if unit not in _UNIT_SECONDS or not number:
                raise ValueError(f"malformed duration {text!r}: write for example 30s, 5m or 1h30m")
            total, number, unit = total + float(number) * _UNIT_SECONDS[unit], "", ""
        if char.isdigit() or char == ".":
            number += char
        elif char != "\0":
            unit += char
    return total + float(number) if number else total
